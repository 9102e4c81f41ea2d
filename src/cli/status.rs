//! `signpost status`: how the running server is doing.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::explain::ask;
use super::{Output, shown};
use crate::status::Status;

/// Octets: a thousand clusters have some 500 each, and a thousand directives.
const MOST: u64 = 16 << 20;
/// From one look to the next.
const PAUSE: Duration = Duration::from_secs(2);

pub fn run(path: &Path, output: Output, watch: bool) -> ExitCode {
    loop {
        let told = tell(path, output);
        let failed = told.is_err();
        if watch && !failed && std::io::stdout().is_terminal() {
            // To the beginning of an empty screen.
            print!("\x1b[H\x1b[2J");
        }
        let code = shown(told);
        if !watch {
            return code;
        }
        // Whoever reads it has gone.
        if std::io::stdout().flush().is_err() {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(PAUSE);
    }
}

fn tell(path: &Path, output: Output) -> Result<String, String> {
    let text = ask(path, "/status", MOST, "")?;
    match output {
        Output::Json => Ok(text),
        Output::Table => {
            let status: Status =
                serde_json::from_str(&text).map_err(|error| format!("the server gives no status: {error}"))?;
            Ok(status.to_string())
        }
    }
}
