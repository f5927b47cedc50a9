//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Boots the lab: a machine with AMD-V under QEMU's emulation, so with an ordinary /dev/kvm.
///
/// In it, / is this machine's own file system, read-only; target/lab/share is writable; /tmp, /run
/// and /var/tmp (an ext4 disk) are its own.
#[derive(Debug, Parser)]
#[command(name = "lab")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) job: Job,
    #[command(flatten)]
    pub(super) machine: Machine,
}

#[derive(Debug, Subcommand)]
pub(super) enum Job {
    /// Runs tests in it and ends with "N passed, M failed, K skipped"
    Test(Tests),
    /// An interactive root shell in it
    Shell,
    /// Runs one command in it: its output and its exit status are ours
    Cmd {
        /// For the shell in the machine
        command: String,
    },
    /// Builds the image of Debian, if it is not there
    Debian,
    /// The same guests under Moirai and QEMU: medians and ratios
    Bench {
        /// How often each is booted
        #[arg(default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Which guest; both, if none is named
        kind: Option<Kind>,
    },
    /// Runs in the machine: tests of a program, one after the other
    #[command(hide = true)]
    Each(Each),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Small,
    Debian,
}

#[derive(Debug, Args)]
pub(super) struct Tests {
    /// Those with this in their names; names that begin with "counted": the counted machines
    pub(super) name: Option<String>,
    /// Leaves the machine's files and its serial log where they are, and says where
    #[arg(long)]
    pub(super) keep: bool,
    /// Seconds that a test may take
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: u64,
    /// Writes the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Words: tests with one of them in their names are left out
    #[arg(long, env = "LAB_SKIP", default_value = "", hide_default_value = true)]
    pub(super) skip: String,
}

/// What the machine is like.
#[derive(Args, Clone, Debug)]
pub(super) struct Machine {
    /// Its processors
    #[arg(long, env = "LAB_CPUS", default_value_t = 2, global = true)]
    pub(super) cpus: u32,
    /// Its memory
    #[arg(long, env = "LAB_MEMORY", default_value = "6G", global = true)]
    pub(super) memory: String,
    /// Seconds after which it is ended
    #[arg(long, env = "LAB_TIMEOUT", global = true)]
    pub(super) timeout: Option<u64>,
    /// Gives the counted machines other random numbers
    #[arg(long, env = "LAB_SEED", default_value_t = 1, global = true)]
    pub(super) seed: u64,
}

#[derive(Debug, Args)]
pub(super) struct Each {
    /// Gets a line for each test that begins or ends
    #[arg(long)]
    pub(super) events: PathBuf,
    /// Seconds that a test may take
    #[arg(long)]
    pub(super) limit: u64,
    /// How many tests there are in all
    #[arg(long)]
    pub(super) of: usize,
    /// How many of them went before
    #[arg(long)]
    pub(super) after: usize,
    /// A folder in which failed tests leave things: it is shown, and cleared of their folders
    #[arg(long)]
    pub(super) clear: Option<PathBuf>,
    /// The test program
    pub(super) program: PathBuf,
    pub(super) tests: Vec<String>,
}
