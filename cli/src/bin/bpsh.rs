fn main() -> std::process::ExitCode {
    cli::bpsh::main()
}
