//! turnhook: from coturn to billing.

use std::process::ExitCode;

/// Rows and batches come and go by the hundred thousand on one thread and are freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    turnhook::cli::main()
}
