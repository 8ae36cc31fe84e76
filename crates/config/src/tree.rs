//! Text into a tree of positions and values, within limits.
//!
//! Aliases share their node, so that a document whose aliases multiply costs no memory; the weight of a node counts what
//! reading it would cost, and is limited.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::mistakes::{Collector, Mistake, Position};

/// A configuration beyond this is a mistake, or an attack.
const MAX_TEXT: usize = 1 << 20;
/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 32;
/// Values in one document, after aliases are followed.
const MAX_WEIGHT: usize = 100_000;
/// Keys of one mapping. Keys are compared with each other, so the time grows with the square.
const MAX_ENTRIES: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) data: Data,
    weight: usize,
    height: usize,
}

#[derive(Debug)]
pub(crate) enum Data {
    Scalar { text: String, plain: bool },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) value: Rc<Node>,
}

impl Node {
    /// `null`, `~` or nothing at all: as if the key were absent.
    pub(crate) fn is_null(&self) -> bool {
        let Data::Scalar { text, plain: true } = &self.data else { return false };
        matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// What stands here, for messages.
    pub(crate) fn found(&self) -> String {
        match &self.data {
            Data::Sequence(_) => "a list".to_owned(),
            Data::Mapping(_) => "a mapping".to_owned(),
            Data::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Data::Scalar { text, .. } => {
                let shown: String = text.chars().take(40).collect();
                let dots = if shown.len() < text.len() { "…" } else { "" };
                format!("{:?}", format!("{shown}{dots}"))
            }
        }
    }
}

/// Reads one document. Double keys go to `mistakes`; what ends the reading is the error.
pub(crate) fn parse(text: &str, mistakes: &Collector) -> Result<Rc<Node>, Mistake> {
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_TEXT {
        return Err(Mistake { position: start, text: format!("the file is larger than {MAX_TEXT} bytes") });
    }
    let mut builder = Builder { mistakes, open: Vec::new(), anchors: HashMap::new(), values: 0, root: None };
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(not_yaml)?;
        builder.event(event, position(span.start))?;
    }
    Ok(builder.root.unwrap_or_else(|| Rc::new(scalar(String::new(), true, start))))
}

fn not_yaml(error: ScanError) -> Mistake {
    Mistake { position: position(*error.marker()), text: format!("this is not YAML: {}", error.info()) }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn scalar(text: String, plain: bool, position: Position) -> Node {
    Node { position, data: Data::Scalar { text, plain }, weight: 1, height: 0 }
}

/// A list or mapping whose end has not come yet.
struct Open {
    position: Position,
    anchor: usize,
    weight: usize,
    height: usize,
    data: OpenData,
}

enum OpenData {
    Sequence(Vec<Rc<Node>>),
    Mapping { entries: Vec<Entry>, merged: Vec<Rc<Node>>, key: Option<(String, bool, Position)> },
}

struct Builder<'m> {
    mistakes: &'m Collector,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    values: usize,
    root: Option<Rc<Node>>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, position: Position) -> Result<(), Mistake> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_none() => Ok(()),
            Event::DocumentStart(_) => {
                Err(Mistake { position, text: "a second document begins here; the file must hold one".to_owned() })
            }
            Event::Scalar(text, style, anchor, _) => {
                self.place(anchor, Rc::new(scalar(text.into_owned(), style == ScalarStyle::Plain, position)), position)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| Mistake {
                    position,
                    text: "this alias refers to the value that it is part of".to_owned(),
                })?;
                self.place(0, node, position)
            }
            Event::SequenceStart(anchor, _) => self.start(position, anchor, OpenData::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.start(position, anchor, OpenData::Mapping { entries: Vec::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn start(&mut self, position: Position, anchor: usize, data: OpenData) -> Result<(), Mistake> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.open.push(Open { position, anchor, weight: 1, height: 0, data });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        let Some(Open { position, anchor, weight, height, data }) = self.open.pop() else { return Ok(()) };
        let data = match data {
            OpenData::Sequence(items) => Data::Sequence(items),
            OpenData::Mapping { mut entries, merged, .. } => {
                self.merge(&mut entries, &merged)?;
                Data::Mapping(entries)
            }
        };
        self.place(anchor, Rc::new(Node { position, data, weight, height: height + 1 }), position)
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, anchor: usize, node: Rc<Node>, position: Position) -> Result<(), Mistake> {
        if self.open.len() + node.height > MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.values += 1;
        if self.values > MAX_WEIGHT {
            return Err(too_many(position));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight = parent.weight.saturating_add(node.weight);
        parent.height = parent.height.max(node.height);
        if parent.weight > MAX_WEIGHT {
            return Err(too_many(position));
        }
        match &mut parent.data {
            OpenData::Sequence(items) => items.push(node),
            OpenData::Mapping { entries, merged, key } => match key.take() {
                None => {
                    let Data::Scalar { text, plain } = &node.data else {
                        return Err(Mistake { position, text: format!("a key must be text, not {}", node.found()) });
                    };
                    *key = Some((text.clone(), *plain, position));
                }
                Some((text, true, _)) if text == "<<" => merged.push(node),
                Some((text, _, at)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let line = first.position.line;
                        self.mistakes.add(Mistake {
                            position: at,
                            text: format!("the key {text:?} stands in line {line} already"),
                        });
                    } else if entries.len() >= MAX_ENTRIES {
                        return Err(too_many_keys(at));
                    } else {
                        entries.push(Entry { key: text, position: at, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Applies `<<: *defaults`: keys of the mapping itself win, then those of earlier mappings.
    fn merge(&self, entries: &mut Vec<Entry>, merged: &[Rc<Node>]) -> Result<(), Mistake> {
        for node in merged {
            let sources = match &node.data {
                Data::Sequence(items) => items.as_slice(),
                Data::Mapping(_) | Data::Scalar { .. } => std::slice::from_ref(node),
            };
            for source in sources {
                let Data::Mapping(from) = &source.data else {
                    let text = format!("only a mapping can be merged with <<, not {}", source.found());
                    self.mistakes.add(Mistake { position: source.position, text });
                    continue;
                };
                for entry in from {
                    if entries.iter().any(|own| own.key == entry.key) {
                        continue;
                    }
                    if entries.len() >= MAX_ENTRIES {
                        return Err(too_many_keys(source.position));
                    }
                    entries.push(entry.clone());
                }
            }
        }
        Ok(())
    }
}

fn too_deep(position: Position) -> Mistake {
    Mistake { position, text: format!("lists and mappings stand more than {MAX_DEPTH} deep in each other") }
}

fn too_many_keys(position: Position) -> Mistake {
    Mistake { position, text: format!("more than {MAX_ENTRIES} keys in one mapping") }
}

fn too_many(position: Position) -> Mistake {
    Mistake { position, text: format!("the file holds more than {MAX_WEIGHT} values, aliases counted") }
}
