fn main() -> std::process::ExitCode {
    cli::bpctl::main()
}
