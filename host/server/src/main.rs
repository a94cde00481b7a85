//! The program `countersign`: see [`countersign::cli`].

fn main() -> std::process::ExitCode {
    countersign::cli::main()
}
