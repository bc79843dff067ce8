//! Choices that are the same in every run.

/// A xorshift sequence, of one user.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(number: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1))
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(choices.len() as u64)).expect("few");
        choices.get(index).expect("below their number")
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// A byte that stands in no verb and ends no line, and is none of Telnet's.
    pub(crate) fn garbage(&mut self) -> u8 {
        u8::try_from(self.below(0x40) + 0x80).expect("below 0xC0")
    }
}
