//! `tunnel ingress`: looking at rules without serving them.

use agent::ingress::Rules;
use clap::Subcommand;
use serde_json::json;
use url::Url;

use super::{Flags, Settings};
use crate::problem::Problem;
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  snicket tunnel --config config.yml ingress validate
  snicket tunnel --config config.yml ingress rule https://www.example.com/api";

/// Arguments of `tunnel ingress`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether the configuration file is right, or all that is wrong with it
    #[command(after_help = EXAMPLES)]
    Validate {
        /// Look at this JSON document instead of a file
        #[arg(value_name = "JSON")]
        document: Option<String>,
    },
    /// Show the rule that a URL leads to
    #[command(after_help = EXAMPLES)]
    Rule {
        /// The URL a visitor would open
        url: String,
    },
}

/// Does it.
pub(super) fn run(args: Args, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    match args.action {
        Action::Validate { document } => validate(document, flags, screen),
        Action::Rule { url } => rule(&url, flags, screen),
    }
}

fn validate(document: Option<String>, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let (place, rules) = match document {
        Some(text) => {
            let document = agent::ingress::Document::from_json(text.as_bytes()).map_err(|error| {
                anyhow::Error::new(error).context(Problem::usage("the rules are not usable", "correct what is named"))
            })?;
            ("the command line".to_owned(), document.rules)
        }
        None => from_file(flags)?,
    };
    screen.say(format!("Validating rules from {place}\nOK"));
    screen.event(&json!({ "event": "rules", "valid": true, "source": place, "rules": rules.iter().len() }));
    Ok(())
}

fn rule(text: &str, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let url = Url::parse(text).ok().filter(|url| url.host_str().is_some());
    let Some(url) = url else {
        return Err(
            Problem::usage(format!("{text:?} is not a URL"), "write for example https://www.example.com/path").into()
        );
    };
    let (place, rules) = from_file(flags)?;
    let host = url.host_str().expect("checked above");
    let (index, rule) = rules.find(host, url.path());
    let hostname = rule.hostname.as_ref().map(ToString::to_string);
    let path = rule.path.as_ref().map(ToString::to_string);
    screen.say(format!("Using rules from {place}\nMatched rule #{index}"));
    if let Some(hostname) = &hostname {
        screen.say(format!("\thostname: {hostname}"));
    }
    if let Some(path) = &path {
        screen.say(format!("\tpath: {path}"));
    }
    screen.say(format!("\tservice: {}", rule.service));
    screen.event(&json!({
        "event": "rule", "index": index, "hostname": hostname, "path": path, "service": rule.service.to_string(),
    }));
    Ok(())
}

fn from_file(flags: &Flags) -> anyhow::Result<(String, Rules)> {
    let Settings { values, path } = flags.settings()?;
    let Some(path) = path else {
        return Err(Problem::usage("no configuration file", "name one: snicket tunnel --config FILE ingress …").into());
    };
    let Some(document) = values.document else {
        return Err(Problem::usage(
            format!("{} has no ingress rules", path.display()),
            "add a list `ingress:` whose last rule has a service and nothing else",
        )
        .into());
    };
    Ok((path.display().to_string(), document.rules))
}
