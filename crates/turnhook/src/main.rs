//! turnhook: from coturn to billing.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnhook::cli::main()
}
