//! `vnet`: see `vnet --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vnet_cli::main()
}
