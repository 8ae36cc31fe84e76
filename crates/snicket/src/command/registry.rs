//! `snicket registry`: all that is configured, as a file, out of a registry and into another; new authorities.

mod rotate;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use registry::{Document, ImportError, import};
use serde_json::json;

use super::up;
use crate::keep::{Keep, RegistryArgs};
use crate::paths;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::{make_private_dir, write_private};

const EXAMPLES: &str = "\
Examples:
  snicket registry export backup.jsonl
  snicket registry export --registry etcd://10.0.0.1:2379 backup.jsonl
  snicket registry import --data /var/lib/snicket/edge backup.jsonl
  snicket registry rotate-authority origins";

const EXPORT_EXAMPLES: &str = "\
Examples:
  snicket registry export backup.jsonl
  snicket registry export --config /etc/snicket/edge.yml > backup.jsonl

The file has secrets in it as they are. A registry in a file can be exported while its edge is stopped, one in etcd
at any time.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  snicket registry import backup.jsonl
  snicket registry import --registry etcd://10.0.0.1:2379 --replace backup.jsonl

An import into etcd that is broken off is run again, with --replace; no node starts in between.";

/// Arguments of `registry`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write all that is configured to a file
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Read it from a file into a registry that is empty
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Import),
    /// Have a new authority sign certificates of nodes or of origins
    #[command(after_help = rotate::EXAMPLES)]
    RotateAuthority(rotate::Args),
}

/// Which registry.
#[derive(Debug, clap::Args)]
struct Which {
    /// Data directory of the edge [default: $XDG_DATA_HOME/snicket/edge]
    #[arg(long, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// The edge's configuration file, which says both
    #[arg(long, value_name = "FILE", env = "SNICKET_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// Made, for its owner only, or replaced; standard output if left out
    file: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// What `registry export` wrote
    file: PathBuf,
    /// Let go of what is in the registry and not in the file
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    which: Which,
}

impl Which {
    fn keep(self) -> anyhow::Result<Keep> {
        let (data, registry) = up::registry_of(self.config.as_deref())?;
        let data = self.data.or(data).unwrap_or_else(paths::edge_data);
        up::registry_at(self.registry.or(registry), &data)?.keep(data)
    }
}

/// Does it.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    match args.command {
        Command::Export(args) => export(args, screen).await,
        Command::Import(args) => load(args, screen).await,
        Command::RotateAuthority(args) => rotate::run(args, screen).await,
    }
}

async fn export(args: Export, screen: Screen) -> anyhow::Result<()> {
    let keep = args.which.keep()?;
    let engine = keep.open_to_read().await?;
    let state = engine.load().await.map_err(|error| keep.unopened(error.into()))?;
    let document = Document::of(&state).map_err(|error| keep.unopened(error))?;
    let Some(file) = args.file else {
        return document.write(std::io::stdout().lock()).context("standard output takes no more");
    };
    let mut text = Vec::new();
    document.write(&mut text).context("memory takes everything")?;
    write_private(&file, &text)?;
    let (entries, revision) = (document.len(), document.revision);
    screen.event(&json!({ "event": "exported", "file": file, "entries": entries, "revision": revision }));
    screen.say(format!(
        "{entries} entries at revision {revision} are in {}, with their secrets as they are: only you can read it; keep \
         it so.",
        file.display()
    ));
    Ok(())
}

async fn load(args: Import, screen: Screen) -> anyhow::Result<()> {
    let document = read(&args.file)?;
    let keep = args.which.keep()?;
    make_private_dir(&keep.data).with_context(|| {
        let what = format!("cannot make the data directory {}", keep.data.display());
        Problem::new(what, "name another one with --data")
    })?;
    let engine = keep.open_to_write().await?;
    let imported = import(engine.as_ref(), &document, args.replace).await.map_err(refused)?;
    let (entries, written, removed) = (document.len(), imported.written, imported.removed);
    screen.event(&json!({ "event": "imported", "entries": entries, "written": written, "removed": removed }));
    screen
        .say(format!("The registry has the {entries} entries of the file: {written} were written, {removed} removed."));
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Document> {
    let what = format!("{} is no exported registry", file.display());
    let opened = File::open(file).with_context(|| {
        Problem::usage(format!("cannot read {}", file.display()), "check the path and who may read it")
    })?;
    let advice = "give what `snicket registry export` wrote, of this version or an older one";
    Document::read(BufReader::new(opened)).with_context(|| Problem::new(what, advice))
}

fn refused(error: ImportError) -> anyhow::Error {
    let (what, advice) = match &error {
        ImportError::NotEmpty(_) => (
            "nothing was imported",
            "export what is there first; then --replace lets it go, or --data and --registry name another registry",
        ),
        ImportError::Document(_) => ("nothing was imported", "correct the file, or export it anew"),
        ImportError::Engine(_) | ImportError::Refused(_) => {
            ("nothing was imported", "see the reason above, and try again")
        }
        ImportError::Broken(_) => ("not all of it was imported", "run it again, with --replace; nodes that run go on"),
    };
    anyhow::Error::new(error).context(Problem::new(what, advice))
}
