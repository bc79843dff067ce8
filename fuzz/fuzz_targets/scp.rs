#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| wharf_fuzzing::run("scp", input));
