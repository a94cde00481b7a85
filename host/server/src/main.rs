//! The program `countersign`: see [`countersign::cli`].

fn main() -> std::process::ExitCode {
    // `preset build` runs this program once more, as cargo's rustc.
    if let Some(done) = countersign_author::project::run_if_called_as_rustc() {
        return done;
    }
    countersign::cli::main()
}
