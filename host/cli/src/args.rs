//! The command line as clap reads it. What each command does is in the module of its name.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use moirai_scheduler::{POLICIES, PolicyKind};

/// Tenant VMs that keep promises about time.
#[derive(Debug, Parser)]
#[command(name = "moirai", version, about, after_help = EXIT_STATUS)]
pub struct Cli {
    /// Socket of the host service.
    #[arg(
        long,
        global = true,
        env = "MOIRAI_SOCKET",
        default_value = "/run/moirai/host.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  it failed; the last line on standard error says why
  2  the command line or the configuration is bad
  3  admission refused
  4  no host service answers, or not in time, or what answers is none
  5  the tenant that was to be shown or stopped is, and it has failed: by itself, or it had to \
     be killed
  141  whoever read the output has gone away (as SIGPIPE ends other programs)";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the host service in the foreground
    Host(HostArgs),
    /// Start the tenants of a configuration file
    Launch(FileArgs),
    /// Offer the volumes and links of a configuration file to VMMs that are not ours
    Export(FileArgs),
    /// List the exports: socket, contract, who is connected
    Exports(ReportArgs),
    /// End an export; whoever is connected is hung up on
    Unexport(NameArgs),
    /// List the tenants
    List(ReportArgs),
    /// Show a tenant: state, contracts, what it got
    Show(NameArgs),
    /// Say in plain words what is promised to a tenant, and what it got
    Explain(ExplainArgs),
    /// Change contracts of a running tenant or an export
    Set(SetArgs),
    /// Stop a tenant, or forget one that has ended
    Stop(StopArgs),
    /// Connect to a tenant's console; Ctrl-] leaves
    Console(ConsoleArgs),
    /// Watch contracts, services, misses and queues
    Top(TopArgs),
    /// Ask admission whether a configuration can be kept; nothing is started
    Plan(PlanArgs),
    /// Run a configuration in virtual time: what would happen if
    Simulate(SimulateArgs),
    /// Show the promise, and what happens without it: five tenants, one film, two runs
    Demo(DemoArgs),
    /// Receive an RTP stream and judge it: loss, lateness, jitter
    Receive(ReceiveArgs),
    /// Measure what a configuration has to say about the machine
    #[command(subcommand)]
    Probe(ProbeCommand),
    /// Make what tenants boot: Debian, or a library OS application
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print a shell completion script
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// Directory to write them into; it must exist.
        directory: PathBuf,
    },
    /// Print the JSON Schema of the configuration: all tables, keys and kinds of values
    Schema,
}

/// How to report.
#[derive(Clone, Copy, Debug, Args)]
pub struct ReportArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `moirai demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Length of each of the two runs.
    #[arg(long, default_value_t = 30, value_parser = |text: &str| whole::<u32>(text, 1, 86_400))]
    pub seconds: u32,
    /// The film, an MPEG transport stream; made if it is not there.
    #[arg(long, value_name = "FILE", default_value_os_t = moirai_bench::demo::default_film())]
    pub film: PathBuf,
    /// Where to draw the arrivals over time.
    #[arg(long, value_name = "FILE", default_value = "moirai-demo.svg")]
    pub svg: PathBuf,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai receive`.
#[derive(Debug, Args)]
pub struct ReceiveArgs {
    /// Where to listen, as 10.0.0.1:5004.
    #[arg(value_parser = socket_address)]
    pub address: std::net::SocketAddr,
    /// How long.
    #[arg(long, default_value_t = 10, value_parser = |text: &str| whole::<u32>(text, 1, 86_400))]
    pub seconds: u32,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum ProbeCommand {
    /// Measure a disk: latencies, bandwidth, and the `max_unit` to declare. Writes only to a file
    /// of its own in the disk's folder; a block device is only read
    Disk(ProbeDiskArgs),
}

/// Arguments of `moirai probe disk`.
#[derive(Debug, Args)]
pub struct ProbeDiskArgs {
    /// Name of the disk in the configuration.
    pub name: String,
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "moirai.toml")]
    pub config: PathBuf,
    /// For how long.
    #[arg(long, default_value_t = 10, value_parser = |text: &str| whole::<u32>(text, 1, 600))]
    pub seconds: u32,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// First come, first served everywhere: the control of an experiment.
    #[arg(long)]
    pub no_scheduling: bool,
}

/// A configuration file.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// Configuration file.
    pub file: PathBuf,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Configuration file.
    pub file: PathBuf,
    /// Show for every refusal what is due by when, and what can be supplied.
    #[arg(long)]
    pub explain: bool,
    /// Where to draw demand against supply of every resource.
    #[arg(long, value_name = "OUT")]
    pub svg: Option<PathBuf>,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Configuration file; `[tenant.load]` says what each tenant does.
    pub file: PathBuf,
    /// How long, in virtual time.
    #[arg(long, default_value_t = 10, value_parser = |text: &str| whole::<u64>(text, 1, 86_400))]
    pub seconds: u64,
    /// Equal seeds give equal results.
    #[arg(long, default_value_t = 1, value_parser = |text: &str| whole::<u64>(text, 0, u64::MAX))]
    pub seed: u64,
    /// Simulate every core, disk and link under this policy.
    #[arg(long, value_name = "NAME", value_parser = policies())]
    pub policy: Option<PolicyKind>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where to draw who was served when, in the first four of the longest periods.
    #[arg(long, value_name = "OUT")]
    pub svg: Option<PathBuf>,
    /// Where to write a trace that Perfetto (ui.perfetto.dev) opens.
    #[arg(long, value_name = "OUT")]
    pub trace: Option<PathBuf>,
}

/// A tenant or an export.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its name.
    pub name: String,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of the tenant, or `export/NAME`.
    pub name: String,
    /// Explain the tenant of this configuration file, without a host service.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The tenant and how to report.
    #[command(flatten)]
    pub tenant: NameArgs,
    /// Pull the plug instead of pressing the power button and waiting for the guest.
    #[arg(long)]
    pub now: bool,
}

/// Arguments of `moirai console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Name of the tenant.
    pub name: String,
    /// Print what is there, then end.
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `moirai set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Name of the tenant, or `export/NAME`.
    pub name: String,
    /// `cpu.slice=4ms`, `cpu.period=20ms`, `disk.rate=30%`, `net.UPLINK.rate=8Mbit/s`,
    /// `cpu.extra=true`.
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub changes: Vec<String>,
    /// How to report.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `moirai top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    pub interval: f64,
    /// Print one table of the last interval, then end.
    #[arg(long)]
    pub once: bool,
    /// Print the counters as one JSON object per interval; with --once at once and once only.
    #[arg(long)]
    pub json: bool,
}

fn whole<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("write a whole number from {least} to {most}"))
}

fn socket_address(text: &str) -> Result<std::net::SocketAddr, String> {
    let help = "write an address and a port, for example 10.0.0.1:5004";
    text.parse().map_err(|_| help.to_owned())
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("write 0.1 to 3600 seconds".to_owned())
    }
}

/// What `moirai image` makes.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Debian: a root file system with a user and a login on the console, its kernel beside it
    Debian(DebianArgs),
    /// A library OS application of the source tree
    Libos(LibosArgs),
}

/// Arguments of `moirai image debian`.
#[derive(Debug, Args)]
pub struct DebianArgs {
    /// The root file system; OUT.vmlinuz, OUT.vmlinux and OUT.initrd are put beside it.
    pub out: PathBuf,
    /// Size of the file system; the file is sparse.
    #[arg(long, default_value = "2G")]
    pub size: moirai_config::units::Size,
    /// Format of the volume.
    #[arg(long, default_value = "raw", value_parser = ["raw", "qcow2"])]
    pub format: String,
    /// Public keys that may log in over the network.
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Name of the user. It has no password and may use sudo: whoever reaches the console is in.
    #[arg(long, value_name = "NAME", default_value = "user")]
    pub user: String,
    /// Name of the machine.
    #[arg(long, value_name = "NAME", default_value = "debian")]
    pub hostname: String,
}

/// Arguments of `moirai image libos`.
#[derive(Debug, Args)]
pub struct LibosArgs {
    /// Its name: a folder in guest/apps.
    pub app: String,
    /// The image.
    pub out: PathBuf,
}

/// Takes the names of policies, and shows them.
fn policies() -> impl TypedValueParser<Value = PolicyKind> {
    PossibleValuesParser::new(POLICIES).try_map(|name| name.parse())
}
