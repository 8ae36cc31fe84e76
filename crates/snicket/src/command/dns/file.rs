//! `dns export` and `import`: zone files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::problem::Problem;
use crate::screen::Screen;
use crate::v4::Api;

/// The largest file that the API takes.
const LARGEST_FILE: u64 = 10 * 1024 * 1024;

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  snicket dns export example.com > example.com.zone
  snicket dns export example.com example.com.zone

The file is BIND's, but for SOA and NS of the zone itself, which are those of whoever answers for it. What it has no
place for stands in comments behind the records, which an import understands: proxied, people's notes and tags.";

/// Arguments of `dns export`.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Its name
    zone: String,
    /// Made or replaced; standard output if left out
    file: Option<PathBuf>,
}

pub(super) const IMPORT_EXAMPLES: &str = "\
Examples:
  snicket dns import example.com example.com.zone
  dig @ns1.example.net example.com AXFR | snicket dns import example.com -

Records that are there already stay as they are, and none is removed; SOA and the zone's own NS records are passed
over. A file with a mistake changes nothing.";

/// Arguments of `dns import`.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// Its name
    zone: String,
    /// A zone file; `-` is standard input
    file: PathBuf,
}

/// Writes it.
pub(super) async fn export(args: Export, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.zone(&args.zone).await?;
    let text = api.export_zone(&zone).await?;
    let Some(file) = args.file else {
        screen.event(&json!({ "event": "exported", "zone": zone.name, "text": text }));
        screen.say(text.trim_end());
        return Ok(());
    };
    std::fs::write(&file, &text).with_context(|| {
        Problem::usage(format!("cannot write {}", file.display()), "check the path and that you may write there")
    })?;
    // All else in it are comments.
    let records = text.lines().filter(|line| !line.starts_with(';')).count();
    screen.event(&json!({ "event": "exported", "zone": zone.name, "file": file, "records": records }));
    screen.say(format!("{records} records of {} are in {}", zone.name, file.display()));
    Ok(())
}

/// Reads it.
pub(super) async fn import(args: Import, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let text = read(&args.file).with_context(|| {
        Problem::usage(format!("cannot read {}", args.file.display()), "check the path and what is in it")
    })?;
    let zone = api.zone(&args.zone).await?;
    let imported = api.import_zone(&zone, text.into()).await?;
    let (added, all) = (imported.recs_added, imported.total_records_parsed);
    screen.event(&json!({ "event": "imported", "zone": zone.name, "records": all, "added": added }));
    screen.say(format!(
        "Added {added} of the {all} records in the file to {}; {} were there already",
        zone.name,
        all - added.min(all)
    ));
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST_FILE + 1).read_to_end(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(LARGEST_FILE + 1).read_to_end(&mut text)?;
    }
    if text.len() as u64 > LARGEST_FILE {
        bail!("it has more than {LARGEST_FILE} bytes, which the API does not take: split it");
    }
    Ok(text)
}
