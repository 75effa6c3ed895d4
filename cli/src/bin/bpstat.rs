fn main() -> std::process::ExitCode {
    cli::bpstat::main()
}
