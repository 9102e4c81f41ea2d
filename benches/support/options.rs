//! What the benchmarks' command lines have in common.

use std::error::Error;
use std::process::ExitCode;

/// The value behind `option`, which is to be a number from `least` to `most`.
pub fn number(option: &str, value: Option<String>, least: u32, most: u32) -> Result<u32, String> {
    let text = value.ok_or_else(|| format!("{option} needs a value"))?;
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{option} {text} is no number from {least} to {most}"))
}

/// Says why the benchmark of this name failed, if it did.
pub fn finish(name: &str, outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
