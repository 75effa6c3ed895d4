fn main() -> std::process::ExitCode {
    cli::bpcp::main()
}
