//! `src/main.rs` once more, to be linked without libraries: `cargo rustc --test static_program -- -C target-feature=+crt-static`.

use std::process::ExitCode;

fn main() -> ExitCode {
    signpost::cli::main()
}
