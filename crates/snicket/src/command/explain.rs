//! `snicket explain`: the codes on the edge's error pages.

use edge::refusal::{self, Refusal};
use serde_json::json;

use crate::problem::Problem;
use crate::screen::Screen;
use crate::table::Table;

const EXAMPLES: &str = "\
Examples:
  snicket explain 1033
  snicket explain          all codes";

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The number on the error page
    #[arg(value_parser = code)]
    code: Option<u16>,
}

fn code(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "a code is a number such as 1033; without one all are listed".to_owned())
}

/// Prints what is known.
pub(crate) fn run(args: &Args, screen: Screen) -> anyhow::Result<()> {
    let Some(code) = args.code else {
        let mut table = Table::new(&["CODE", "STATUS", "MEANING"]);
        for refusal in refusal::ALL {
            screen.event(&event(refusal));
            table.row([refusal.code.to_string(), refusal.status.to_string(), refusal.title.to_owned()]);
        }
        screen.say(table.to_string());
        return Ok(());
    };
    let Some(found) = refusal::find(code) else {
        return Err(Problem::usage(
            format!("no error page of this edge has the code {code}"),
            "`snicket explain` without a code lists all; other numbers come from the origin itself",
        )
        .into());
    };
    screen.event(&event(found));
    screen.say(format!("{}  {} (HTTP status {})", found.code, found.title, found.status));
    screen.say(format!("\nWhat happened: {}\nWhy, usually:  {}\nWhat to do:    {}", found.what, found.why, found.todo));
    Ok(())
}

fn event(refusal: &Refusal) -> serde_json::Value {
    json!({
        "event": "explanation",
        "code": refusal.code,
        "status": refusal.status,
        "title": refusal.title,
        "what": refusal.what,
        "why": refusal.why,
        "todo": refusal.todo,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_troubleshooting_lists_the_catalogue() {
        let page = include_str!("../../../../docs/troubleshooting.md");
        let rows =
            refusal::ALL.iter().map(|refusal| format!("| {} | {} | {} |", refusal.code, refusal.status, refusal.title));
        let listed: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("| code")).skip(2).collect();
        assert_eq!(listed, rows.collect::<Vec<_>>());
    }
}
