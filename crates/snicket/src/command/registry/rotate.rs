//! `snicket registry rotate-authority`: a new authority in the place of one that is old, or whose key somebody may have.

use clap::ValueEnum;
use registry::AuthorityPurpose;
use serde_json::json;

use crate::command::status::Which;
use crate::screen::Screen;

pub(super) const EXAMPLES: &str = "\
Examples:
  snicket registry rotate-authority nodes
  snicket registry rotate-authority origins
  snicket registry rotate-authority origins --end

A running node does it, and all go on. The authority before is trusted beside the new one: that of nodes for a week,
that of origins until --end. Who fears that somebody has its key ends it at once.";

/// Arguments of `registry rotate-authority`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose certificates it signs
    whose: Whose,
    /// Trust the authority before no more, and change nothing else
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whose {
    Nodes,
    Origins,
}

/// Does it.
pub(super) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let api = args.which.api()?;
    let purpose = match args.whose {
        Whose::Nodes => AuthorityPurpose::Node,
        Whose::Origins => AuthorityPurpose::Origin,
    };
    let whose = purpose.plural();
    if args.end {
        let authority = api.end_former_authority(purpose).await?;
        screen.event(&json!({ "event": "authority_ended", "of": whose, "fingerprint": authority.fingerprint }));
        screen.say(match args.whose {
            Whose::Nodes => "Keys for joining that were made under the nodes' former authority are good no more.",
            Whose::Origins => "Agents trust certificates of the origins' former authority no more.",
        });
        return Ok(());
    }
    let authority = api.rotate_authority(purpose).await?;
    let former = authority.former.as_ref();
    let until = former.and_then(|former| former.until);
    screen.event(&json!({
        "event": "authority_rotated",
        "of": whose,
        "fingerprint": authority.fingerprint,
        "former": former.map(|former| &former.fingerprint),
        "former_until": until,
    }));
    screen.say(format!("The {whose}' authority is a new one: {}\n", authority.fingerprint));
    match (args.whose, until) {
        (Whose::Nodes, Some(until)) => screen.say(format!(
            "Nodes have certificates of it within seconds. Keys for joining that were made before are good as long as they \
             were, at most until {until:.0}. To end them now:\n\n  snicket registry rotate-authority nodes --end"
        )),
        (Whose::Origins, _) if former.is_some() => screen.say(
            "It signs what origins ask for from now on. Agents trust the one before as well. Once all origins have new \
             certificates:\n\n  snicket registry rotate-authority origins --end",
        ),
        (Whose::Nodes | Whose::Origins, _) => (),
    }
    Ok(())
}
