//! YAML (and with it JSON) text -> a tree of values that know where they stand. The only file that knows the YAML
//! parser. Refuses duplicate keys, keys that are not scalars, tags beyond the core schema, nesting deeper than
//! [`MAX_DEPTH`] and documents whose aliases expand beyond [`MAX_VALUES`] values or
//! [`MAX_DOCUMENT_BYTES`](gateway_proto::admin::MAX_DOCUMENT_BYTES) of text. Variables and `$file` are filled in
//! here, as each scalar appears, so that every later reader sees final text at its own position.
//!
//! Invariant: no value is larger than the budget at any moment; aliases are copied only after they are paid for.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use gateway_proto::admin::MAX_DOCUMENT_BYTES;
use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag,
};

use super::error::Fault;
use super::resolver::Resolver;

/// Deepest nesting of lists and objects; the kinds need about twelve.
pub(super) const MAX_DEPTH: usize = 64;
/// Most values (scalars, lists, objects) of one document, aliases expanded.
pub(super) const MAX_VALUES: usize = 100_000;

/// A value and the bytes it stands in.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) value: Value<'t>,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Scalar(Cow<'t, str>, Style),
    List(Vec<Node<'t>>),
    Object(Vec<(Key<'t>, Node<'t>)>),
}

/// How a scalar is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Unquoted: `8080`, `true` and nothing at all mean what they look like.
    Plain,
    /// Quoted, block, tagged as a string: always a string.
    Text,
    /// Filled in: a string that a number or boolean field may read.
    Filled,
}

#[derive(Clone, Debug)]
pub(super) struct Key<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) span: Range<usize>,
}

impl<'t> Node<'t> {
    /// The value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&Node<'t>> {
        match &self.value {
            Value::Object(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// An unquoted nothing: empty, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(text, Style::Plain) if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    fn weight(&self) -> Weight {
        let mut total = Weight { values: 1, bytes: 0 };
        match &self.value {
            Value::Scalar(text, _) => total.bytes = text.len(),
            Value::List(items) => items.iter().for_each(|item| total.add(item.weight())),
            Value::Object(entries) => entries.iter().for_each(|(key, node)| {
                total.add(Weight { values: 1, bytes: key.text.len() });
                total.add(node.weight());
            }),
        }
        total
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    values: usize,
    bytes: usize,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.values += other.values;
        self.bytes += other.bytes;
    }
}

/// What a reader of a stream is told.
pub(super) enum Found<'t> {
    /// One object: a document, or an item of a document that is a list.
    Root(Node<'t>, Vec<Fault>),
    /// The stream cannot be read on.
    Broken(Fault),
}

/// Reads one `---` section; each object in it goes to `found`, which answers whether to go on.
pub(super) fn read<'t>(text: &'t str, resolver: &Resolver, mut found: impl FnMut(Found<'t>) -> bool) {
    let mut options = Options::default();
    options.set_emit_comments(false);
    (options.flow_nesting_limit, options.block_nesting_limit) = (MAX_DEPTH, MAX_DEPTH);
    let mut parser = Parser::<StrInput<'_>>::new_from_str_with_options(text, options);
    let mut builder = Builder::new(resolver);
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => Err(syntax(&error, text)),
        };
        match step {
            Ok(None) => {}
            Ok(Some(root)) => {
                if !found(Found::Root(root, std::mem::take(&mut builder.faults))) {
                    return;
                }
            }
            Err(fault) => {
                found(Found::Broken(fault));
                return;
            }
        }
    }
}

fn syntax(error: &ScanError, text: &str) -> Fault {
    // An end that comes too soon is shown where the text ends, not on the empty line after it.
    let end = text.trim_end().len();
    let at = error.marker().byte_offset().unwrap_or(end).min(end);
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return too_deep(at..at);
    }
    let info = error.info();
    let fault =
        Fault::new(format!("invalid YAML: {}", info.lines().next().unwrap_or("unreadable"))).at(at..at);
    let line = text.get(..at).and_then(|before| before.lines().next_back()).unwrap_or_default();
    if line.contains('$') { fault.help("inside { } and [ ] write \"${NAME}\" with quotes") } else { fault }
}

fn too_deep(at: Range<usize>) -> Fault {
    Fault::new(format!("nested deeper than {MAX_DEPTH} levels")).at(at)
}

/// A list or object whose end has not come yet.
struct Open<'t> {
    start: usize,
    anchor: usize,
    value: Value<'t>,
    key: Option<Key<'t>>,
}

struct Builder<'t, 'r> {
    resolver: &'r Resolver,
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, (Node<'t>, Weight)>,
    /// Of the object being read.
    spent: Weight,
    /// Of everything that anchors hold.
    anchored: Weight,
    /// Of the object being read; they do not stop it.
    faults: Vec<Fault>,
}

impl<'t, 'r> Builder<'t, 'r> {
    fn new(resolver: &'r Resolver) -> Self {
        let (spent, anchored) = (Weight::default(), Weight::default());
        Builder { resolver, open: Vec::new(), anchors: HashMap::new(), spent, anchored, faults: Vec::new() }
    }

    fn event(&mut self, event: Event<'t>, span: &Span) -> Result<Option<Node<'t>>, Fault> {
        let at = span.byte_range().unwrap_or(0..0);
        if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema()) {
            let at = span.tag_span().and_then(|span| span.byte_range()).unwrap_or(at);
            return Err(Fault::new(format!("unknown tag {}", tag.original()))
                .at(at)
                .help("remove it: the field decides the type"));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(text, style, tag.as_deref(), at);
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Value::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.begin(Value::Object(Vec::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.end(at.end),
            Event::Alias(id) => self.alias(id, at),
            _ => Ok(None),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Range<usize>,
    ) -> Node<'t> {
        let style = match tag {
            Some(tag) if tag.is_yaml_core_schema_tag("str") => Style::Text,
            _ if style == ScalarStyle::Plain => Style::Plain,
            _ => Style::Text,
        };
        let is_key = matches!(self.open.last(), Some(Open { value: Value::Object(_), key: None, .. }));
        if is_key || !text.contains('$') {
            return Node { value: Value::Scalar(text, style), span: at };
        }
        let value = match self.resolver.fill(&text) {
            Ok(None) => Value::Scalar(text, style),
            Ok(Some(filled)) => Value::Scalar(Cow::Owned(filled), Style::Filled),
            Err(fault) => {
                self.faults.push(fault.at(at.clone()));
                Value::Scalar(text, style)
            }
        };
        Node { value, span: at }
    }

    fn begin(
        &mut self,
        value: Value<'t>,
        anchor: usize,
        at: Range<usize>,
    ) -> Result<Option<Node<'t>>, Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.open.push(Open { start: at.start, anchor, value, key: None });
        Ok(None)
    }

    fn end(&mut self, end: usize) -> Result<Option<Node<'t>>, Fault> {
        let Some(closed) = self.open.pop() else { return Ok(None) };
        let span = closed.start..end.max(closed.start);
        let is_roots = self.open.is_empty() && matches!(&closed.value, Value::List(_));
        if is_roots {
            return Ok(None); // its items were the documents
        }
        let value = match closed.value {
            Value::Object(entries) => self.finish_object(entries),
            other => other,
        };
        self.complete(Node { value, span }, closed.anchor)
    }

    fn alias(&mut self, id: usize, at: Range<usize>) -> Result<Option<Node<'t>>, Fault> {
        let Some((_, weight)) = self.anchors.get(&id) else {
            return Err(Fault::new("an alias inside the value it stands for").at(at));
        };
        self.spent.add(*weight);
        check_budget(self.spent, &at)?;
        let (node, _) = &self.anchors[&id];
        let node = Node { value: node.value.clone(), span: at };
        self.place(node)
    }

    /// A value that was written here: pays for it, keeps it for aliases, puts it where it belongs.
    fn complete(&mut self, node: Node<'t>, anchor: usize) -> Result<Option<Node<'t>>, Fault> {
        let bytes = if let Value::Scalar(text, _) = &node.value { text.len() } else { 0 };
        self.spent.add(Weight { values: 1, bytes });
        check_budget(self.spent, &node.span)?;
        if anchor != 0 {
            let weight = node.weight();
            self.anchored.add(weight);
            check_budget(self.anchored, &node.span)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        self.place(node)
    }

    fn place(&mut self, node: Node<'t>) -> Result<Option<Node<'t>>, Fault> {
        let depth = self.open.len();
        let Some(parent) = self.open.last_mut() else {
            self.spent = Weight::default();
            return Ok(Some(node));
        };
        match &mut parent.value {
            Value::List(_) if depth == 1 => {
                self.spent = Weight::default();
                return Ok(Some(node));
            }
            Value::List(items) => items.push(node),
            Value::Object(entries) => match parent.key.take() {
                Some(key) => entries.push((key, node)),
                None => match node.value {
                    Value::Scalar(text, _) => parent.key = Some(Key { text, span: node.span }),
                    _ => {
                        return Err(Fault::new("a key must be a name, not a list or an object").at(node.span));
                    }
                },
            },
            Value::Scalar(..) => {}
        }
        Ok(None)
    }

    /// Checks keys, expands `<<`, reads `$file`.
    fn finish_object(&mut self, mut entries: Vec<(Key<'t>, Node<'t>)>) -> Value<'t> {
        if let [(key, Node { value: Value::Scalar(path, _), .. })] = entries.as_slice()
            && key.text == "$file"
            && self.resolver.is_active()
        {
            return match self.resolver.file(path) {
                Ok(content) => {
                    // Paid for beyond the path itself, which was; the check comes with the value.
                    self.spent.bytes += content.len();
                    Value::Scalar(Cow::Owned(content), Style::Text)
                }
                Err(fault) => {
                    self.faults.push(fault.at(entries[0].1.span.clone()));
                    Value::Scalar(Cow::Borrowed(""), Style::Text)
                }
            };
        }
        self.refuse_duplicates(&entries);
        if entries.iter().any(|(key, _)| key.text == "<<") {
            entries = self.merge(entries);
        }
        Value::Object(entries)
    }

    fn refuse_duplicates(&mut self, entries: &[(Key<'t>, Node<'t>)]) {
        let mut seen: HashMap<&str, &Key<'t>> = HashMap::with_capacity(entries.len());
        for (key, _) in entries {
            if let Some(first) = seen.insert(&key.text, key) {
                let mut fault = Fault::new(format!("duplicate key `{}`", key.text)).at(key.span.clone());
                fault.also = Some(("first given at", first.span.clone()));
                self.faults.push(fault);
            }
        }
    }

    /// YAML's merge key: what `<<` names fills in the keys that are not given.
    fn merge(&mut self, entries: Vec<(Key<'t>, Node<'t>)>) -> Vec<(Key<'t>, Node<'t>)> {
        let (merges, mut merged): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(key, _)| key.text == "<<");
        let mut have: HashSet<String> = merged.iter().map(|(key, _)| key.text.to_string()).collect();
        for (key, node) in merges {
            let sources = match node.value {
                Value::List(sources) => sources,
                _ => vec![node],
            };
            for source in sources {
                let Value::Object(inherited) = source.value else {
                    self.faults
                        .push(Fault::new("`<<` takes an object or a list of objects").at(key.span.clone()));
                    continue;
                };
                merged.extend(inherited.into_iter().filter(|(key, _)| have.insert(key.text.to_string())));
            }
        }
        merged
    }
}

fn check_budget(spent: Weight, at: &Range<usize>) -> Result<(), Fault> {
    let help = "split it, or write out what its aliases (`*name`) repeat";
    if spent.values > MAX_VALUES {
        Err(Fault::new(format!("more than {MAX_VALUES} values in one document")).at(at.clone()).help(help))
    } else if spent.bytes > MAX_DOCUMENT_BYTES {
        Err(Fault::new("more than 1 MiB of text in one document, aliases expanded").at(at.clone()).help(help))
    } else {
        Ok(())
    }
}
