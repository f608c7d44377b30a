//! The wasm-bindgen step of `deno task build:wasm`: turns what cargo built into a module with JavaScript glue.
//!
//! A program of ours rather than wasm-bindgen's own, so that Cargo.lock pins it and nothing is installed for the whole
//! machine. Absent: options. Every host gets the same output, the one of `--target web`.

use std::error::Error;
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

const USAGE: &str = "usage: llamero-wasm-bindgen INPUT.wasm OUTPUT_DIR";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("llamero-wasm-bindgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(input), Some(output), None) = (args.next(), args.next(), args.next()) else { return Err(USAGE.into()) };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(input).out_name("llamero").web(true)?.typescript(true);
    // Who loads the module hands it over: an address beside the glue would be wrong for bundlers and edge hosts.
    bindgen.omit_default_module_path(true);
    bindgen.reset_state_function(true).remove_name_section(true).remove_producers_section(true);
    Ok(bindgen.generate(output)?)
}
