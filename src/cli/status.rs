//! `signpost status`: how the running server is doing.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::explain::{ask, load};
use super::{Output, shown};
use crate::config::Config;
use crate::status::Status;

/// Octets: a thousand clusters have some 500 each, and a thousand directives.
const MOST: u64 = 16 << 20;
/// From one look to the next.
const PAUSE: Duration = Duration::from_secs(2);

pub fn run(path: &Path, output: Output, watch: bool) -> ExitCode {
    let config = match load(path) {
        Ok(config) => config,
        Err(problem) => return shown(Err(problem)),
    };
    loop {
        let told = tell(&config, output);
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

fn tell(config: &Config, output: Output) -> Result<String, String> {
    let text = ask(config, "/status", MOST, "")?;
    match output {
        Output::Json => Ok(text),
        Output::Table => {
            let status: Status =
                serde_json::from_str(&text).map_err(|error| format!("the server gives no status: {error}"))?;
            Ok(status.to_string())
        }
    }
}
