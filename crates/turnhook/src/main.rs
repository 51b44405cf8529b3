//! turnhook: from coturn to billing.

use std::process::ExitCode;

/// Rows and batches come and go by the hundred thousand on one thread and are freed on another; and what a burst or a
/// start has taken is given back to the system after some seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    turnhook::cli::main()
}
