//! Rebuilds the crate when a migration is added: `sqlx::migrate!` embeds the
//! folder, and the compiler sees only the files that were there before.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
