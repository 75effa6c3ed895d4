//! Build, test cluster, tests, benchmarks: everything that is done with this repository beyond `cargo build`.
//!
//! One file per subcommand.

mod bench;
mod cluster;
mod control;
mod deny;
mod dist;
mod ebpf;
mod fuzz;
mod init;
mod machine;
mod products;
mod results;
mod service_exec;
mod soak;
mod test;
mod vm;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Work on ghostproc")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a master and nodes on this machine and run a command on the master
    Cluster(cluster::ClusterArgs),
    /// Control the daemons of a running test cluster
    ClusterCtl(control::CtlArgs),
    /// Build the kernel programs from source
    Ebpf(ebpf::EbpfArgs),
    /// Format, lints, dependencies, unit tests, then the acceptance tests in a cluster and the short form of `vm`
    Test(test::TestArgs),
    /// Measure, beside local execution and ssh; the table is kept in results/bench.md
    Bench(bench::BenchArgs),
    /// The long forms of the tests; the figures are kept in results/soak.md
    Soak(soak::SoakArgs),
    /// Build Debian packages and a tarball
    Dist(dist::DistArgs),
    /// Fuzz the decoders of outside bytes
    Fuzz(fuzz::FuzzArgs),
    /// The packages on virtual machines: Debian's kernels, systemd, apt
    Vm(vm::VmArgs),
    /// Licences, sources and versions of what is built in, by deny.toml
    Deny,
    /// PID 1 of a cluster member
    #[command(hide = true)]
    ClusterInit(init::InitArgs),
    /// Last step before a cluster member's daemon
    #[command(hide = true)]
    ServiceExec(service_exec::ServiceExecArgs),
}

fn main() -> std::process::ExitCode {
    if let Err(why) = products::own_program() {
        eprintln!("xtask: {why:#}");
        return std::process::ExitCode::FAILURE;
    }
    let result = match Cli::parse().task {
        Task::Cluster(args) => cluster::run(args),
        Task::ClusterCtl(args) => control::run(args),
        Task::Ebpf(args) => ebpf::run(args),
        Task::Test(args) => test::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Soak(args) => soak::run(args),
        Task::Fuzz(args) => fuzz::run(args),
        Task::Vm(args) => vm::run(args),
        Task::Deny => deny::run(),
        Task::Dist(args) => dist::run(args),
        Task::ClusterInit(args) => init::run(args),
        Task::ServiceExec(args) => service_exec::run(args),
    };
    match result {
        Ok(code) => code,
        Err(why) => {
            eprintln!("xtask: {why:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
