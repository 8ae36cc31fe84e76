//! Diagnostics: to standard error or a file, as text or JSON.

mod plain;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::pile::Pile;
use crate::problem::Problem;
use plain::Plain;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Every event and header.
    Debug,
    /// Turns of state.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
    /// What ends the process.
    Fatal,
}

impl Level {
    fn directive(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error | Self::Fatal => "error",
        }
    }
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// Text for people.
    #[default]
    Default,
    /// One JSON object per line.
    Json,
}

/// Where diagnostics go, and how many.
#[derive(Debug, Default, Clone)]
pub(crate) struct Logging {
    /// Least important kind that is said; [`Level::Info`] unless the command says otherwise.
    pub(crate) level: Option<Level>,
    /// Append to this file instead of standard error.
    pub(crate) file: Option<PathBuf>,
    /// Text or JSON.
    pub(crate) form: Option<Form>,
}

/// Libraries below us say at `info` and `debug` what nobody running a tunnel wants to read.
const QUIET: &str =
    "h2=warn,hyper=warn,hyper_util=warn,rustls=warn,quinn=warn,quinn_proto=warn,h3=warn,capnp_rpc=warn,mio=warn";

/// The variable with a filter in `tracing`'s own grammar, for the rare case that needs one module only.
const FILTER_VARIABLE: &str = "SNICKET_LOG";

impl Logging {
    /// Puts this in force for the process; `default` is the level when none was asked for.
    pub(crate) fn start(&self, default: Level) -> anyhow::Result<()> {
        let level = self.level.unwrap_or(default).directive();
        let filter = match std::env::var(FILTER_VARIABLE) {
            Ok(text) => text.parse::<Targets>().with_context(|| {
                Problem::usage(format!("{FILTER_VARIABLE} is not a filter"), "write for example `edge=debug`")
            })?,
            Err(_) => format!("{level},{QUIET}").parse().expect("levels and targets are plain words"),
        };
        let colour = self.file.is_none()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && io::IsTerminal::is_terminal(&io::stderr());
        let out: Box<dyn Write + Send> = match self.file.as_deref() {
            None => Box::new(io::stderr()),
            Some(file) => Box::new(append(file)?),
        };
        let builder = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_span_events(FmtSpan::NONE)
            .with_target(false)
            .with_ansi(colour)
            .with_writer(Lines(pile(out).context("no thread can be started")?));
        // A second start in one process can only be a test; the first stays in force.
        let _ = match self.form.unwrap_or_default() {
            Form::Default if colour => builder.finish().with(filter).try_init(),
            Form::Default => builder.event_format(Plain).finish().with(filter).try_init(),
            Form::Json => builder.json().finish().with(filter).try_init(),
        };
        Ok(())
    }
}

/// The process's diagnostics on their way out; a second start keeps the first's way.
static PILE: OnceLock<Pile> = OnceLock::new();

fn pile(out: Box<dyn Write + Send>) -> io::Result<Pile> {
    let tell = |lost| tracing::warn!(lines = lost, "diagnostics were lost: they are read too slowly");
    let pile = Pile::start("log", out, tell)?;
    Ok(PILE.get_or_init(|| pile).clone())
}

/// Lets out what still waits, before the process ends.
pub(crate) fn flush() {
    if let Some(pile) = PILE.get() {
        pile.flush();
    }
}

/// The pile as the library writes to it, a line in each call.
#[derive(Clone)]
struct Lines(Pile);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn append(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::OpenOptions::new().append(true).create(true).open(path).with_context(|| {
        Problem::usage(
            format!("cannot open the log file {}", path.display()),
            "check that its directory exists and is writable",
        )
    })
}

/// The flags of commands that are our own; `tunnel` has cloudflared's.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// Diagnostics on standard error: debug, info, warn, error or fatal
    #[arg(long, value_name = "LEVEL", hide_possible_values = true, env = "SNICKET_LOGLEVEL", hide_env_values = true)]
    loglevel: Option<Level>,
    /// Append diagnostics to this file
    #[arg(long, value_name = "FILE", env = "SNICKET_LOGFILE", hide_env_values = true, hide = true)]
    logfile: Option<PathBuf>,
    /// Diagnostics as text or as JSON
    #[arg(long = "output", value_name = "FORM", env = "SNICKET_LOG_OUTPUT", hide_env_values = true, hide = true)]
    log_form: Option<Form>,
}

impl From<&LogArgs> for Logging {
    fn from(args: &LogArgs) -> Self {
        Self { level: args.loglevel, file: args.logfile.clone(), form: args.log_form }
    }
}
