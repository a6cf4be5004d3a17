//! The shim as a program of its own, for this crate's tests. The `outlive` binary has it as a hidden subcommand.

fn main() -> std::process::ExitCode {
    outlive_executor::shim::main()
}
