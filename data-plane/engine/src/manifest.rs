//! Manifests: YAML or JSON text -> [`Resource`]s that know where they were written. Used by `gatewayctl` and by the
//! data plane's `--manifests`; the control plane uses [`Resolver::literal`] for bodies.
//!
//! A text is cut into `---` sections (`split`), each section is read into a tree with positions, variables filled in
//! (`tree`, `resolver`), and each object of it is read into its generated type (`read`). A section that is a list
//! holds one object per item. All errors of a batch are collected, at most [`MAX_ERRORS`] are kept.
//!
//! Invariants: nothing here panics, whatever the bytes; sizes are checked before work is done; an object that is in
//! the result occurs once in the batch.

mod error;
mod files;
mod locate;
mod read;
mod resolver;
mod split;
mod suggest;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_proto::admin::{MAX_APPLY_BYTES, MAX_DOCUMENT_BYTES, MAX_DOCUMENTS};
use gateway_proto::kind::{Key, Resource};

pub use error::{Class, Excerpt, MAX_ERRORS, ManifestError, ManifestErrors, Place, Source};
pub use resolver::{MAX_FILE_BYTES, Resolver, escape};

use error::{Collector, Fault};
use tree::{Found, Node};

/// One object and the place it was written at.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says, as written: defaults are not filled in.
    pub resource: Resource,
    /// Where it was written.
    pub written: Written,
}

/// The place that an object was written at: what is left to be known once the object itself has gone on.
#[derive(Clone, Debug)]
pub struct Written {
    source: Arc<Source>,
    /// The bytes it is parsed from again when a position is asked for.
    text: Range<usize>,
    /// Which object of that text.
    item: usize,
    /// Paths of its secrets.
    secrets: Vec<String>,
}

impl Document {
    /// Its key; an unset namespace is `default`.
    pub fn key(&self) -> Key {
        self.resource.key()
    }
}

impl Written {
    /// The text it stands in.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Where a field path, as [`Violation`](gateway_proto::field::Violation)s carry it, was written; where nothing
    /// was, its nearest parent; for the empty path the object's name. Parses the object's text again.
    pub fn locate(&self, field: &str) -> Place {
        let mut item = 0;
        let mut span = 0..0;
        tree::read(&self.source.text[self.text.clone()], &Resolver::literal(), |found| {
            let Found::Root(root, _) = found else { return false };
            if item == self.item {
                span = locate::find(&root, field);
            }
            item += 1;
            item <= self.item
        });
        self.source.place(span.start + self.text.start..span.end + self.text.start)
    }

    /// The line that [`Written::locate`] leads to, without the object's secrets.
    pub fn excerpt(&self, field: &str) -> Excerpt {
        let mut secrets: Vec<Range<usize>> = self.secrets.iter().map(|path| self.locate(path).span).collect();
        secrets.sort_unstable_by_key(|span| span.start);
        self.source.excerpt_without(self.locate(field).span, &secrets)
    }
}

/// Reads one text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(source_name: &str, text: &[u8], resolver: &Resolver) -> Result<Vec<Document>, ManifestErrors> {
    let mut batch = Batch::new(resolver.clone());
    batch.add_text(source_name, text, None);
    batch.finish()
}

/// Reads files and folders (their `*.yaml`, `*.yml`, `*.json`, in name order).
///
/// # Errors
/// Everything that cannot be read or is wrong, over all of them.
pub fn load(
    paths: &[PathBuf],
    recursive: bool,
    resolver: &Resolver,
) -> Result<Vec<Document>, ManifestErrors> {
    let mut batch = Batch::new(resolver.clone());
    for path in paths {
        batch.add_path(path, recursive);
    }
    batch.finish()
}

/// Several texts that are one change: limits and duplicates are those of the whole.
#[derive(Debug)]
pub struct Batch {
    resolver: Resolver,
    namespace: Option<String>,
    empty_folders: bool,
    documents: Vec<Document>,
    /// Index into `documents` of each object seen.
    seen: HashMap<Key, usize>,
    errors: Collector,
    bytes: usize,
    count: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new(resolver: Resolver) -> Self {
        Batch {
            resolver,
            namespace: None,
            empty_folders: false,
            documents: Vec::new(),
            seen: HashMap::new(),
            errors: Collector::default(),
            bytes: 0,
            count: 0,
        }
    }

    /// Puts objects without a namespace into this one. To be called before anything is added.
    #[must_use]
    pub fn namespace(mut self, namespace: Option<String>) -> Self {
        self.namespace = namespace;
        self
    }

    /// Takes a folder without manifests for what it is, and not for a mistake. To be called before anything is added.
    #[must_use]
    pub const fn empty_folders(mut self) -> Self {
        self.empty_folders = true;
        self
    }

    /// Adds a file, or the manifests of a folder.
    pub fn add_path(&mut self, path: &Path, recursive: bool) {
        let paths = match files::list(path, recursive) {
            Ok(paths) => paths,
            Err((path, error)) => return self.unreadable(&path, &error),
        };
        if paths.is_empty() && !self.empty_folders {
            let help = if recursive { None } else { Some("folders below it are read with -R".to_owned()) };
            let message = "no manifests in this folder, looked for *.yaml, *.yml and *.json".to_owned();
            self.errors.file(Class::Unreadable, &path.display().to_string(), message, help);
        }
        for path in paths {
            match files::read(&path, MAX_APPLY_BYTES - self.bytes) {
                Ok(Some(bytes)) => {
                    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                    self.add_text(
                        &path.display().to_string(),
                        &bytes,
                        Some(folder.unwrap_or(Path::new("."))),
                    );
                }
                Ok(None) => self.too_large(&path.display().to_string()),
                Err(error) => self.unreadable(&path, &error),
            }
        }
    }

    /// Adds a text; `$file` in it is looked for in `folder`.
    pub fn add_text(&mut self, name: &str, text: &[u8], folder: Option<&Path>) {
        if text.len() > MAX_APPLY_BYTES - self.bytes {
            return self.too_large(name);
        }
        self.bytes += text.len();
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let source = match std::str::from_utf8(text) {
            Ok(text) => Arc::new(Source::new(name, text)),
            Err(error) => return self.not_utf8(name, text, error.valid_up_to()),
        };
        let resolver = folder.map(|folder| self.resolver.within(folder));
        let resolver = resolver.unwrap_or_else(|| self.resolver.clone());
        // Cutting is cheap and parsing is not: too many is known before any of it is parsed.
        if let Some(section) = split::sections(&source.text).nth(MAX_DOCUMENTS - self.count) {
            return self.too_many(&source, section.start);
        }
        for section in split::sections(&source.text) {
            self.add_section(&source, section, &resolver);
        }
    }

    /// Everything that was added.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn finish(self) -> Result<Vec<Document>, ManifestErrors> {
        self.errors.finish(self.documents)
    }

    fn add_section(&mut self, source: &Arc<Source>, section: Range<usize>, resolver: &Resolver) {
        let text = &source.text[section.clone()];
        let is_list = starts_list(text);
        if !is_list && text.len() > MAX_DOCUMENT_BYTES {
            self.count += 1;
            return self.fault(source, section.start, large(text.len()));
        }
        let mut item = 0;
        tree::read(text, resolver, |found| {
            let root = match found {
                Found::Broken(fault) => {
                    self.count += 1;
                    self.fault(source, section.start, fault);
                    return false;
                }
                Found::Root(root, _) if root.is_null() => return true,
                Found::Root(root, faults) if faults.is_empty() => root,
                Found::Root(_, faults) => {
                    faults.into_iter().for_each(|fault| self.fault(source, section.start, fault));
                    item += 1;
                    self.count += 1;
                    return true;
                }
            };
            if self.count >= MAX_DOCUMENTS {
                self.too_many(source, section.start + root.span.start);
                return false;
            }
            self.count += 1;
            self.add_object(source, &section, &root, item);
            item += 1;
            true
        });
    }

    fn add_object(&mut self, source: &Arc<Source>, section: &Range<usize>, root: &Node<'_>, item: usize) {
        if root.span.len() > MAX_DOCUMENT_BYTES {
            return self.fault(
                source,
                section.start,
                large(root.span.len()).at(root.span.start..root.span.start),
            );
        }
        let mut resource = match read::resource(root) {
            Ok(resource) => resource,
            Err(faults) => {
                return faults.into_iter().for_each(|fault| self.fault(source, section.start, fault));
            }
        };
        if let Some(namespace) = &self.namespace
            && resource.metadata().is_none_or(|metadata| metadata.namespace.is_empty())
        {
            resource.metadata_mut().namespace.clone_from(namespace);
        }
        // A braced item can be read again by itself; an indented one only with what stands around it.
        let (text, item) = if source.text[section.start + root.span.start..].starts_with('{') {
            (section.start + root.span.start..section.start + root.span.end, 0)
        } else {
            (section.clone(), item)
        };
        let set = resource.secrets_mut().into_iter().filter(|(_, secret)| !secret.is_empty());
        let secrets = set.map(|(path, _)| path).collect();
        self.add(Document { resource, written: Written { source: Arc::clone(source), text, item, secrets } });
    }

    fn add(&mut self, document: Document) {
        let key = document.key();
        match self.seen.get(&key) {
            None => {
                self.seen.insert(key, self.documents.len());
                self.documents.push(document);
            }
            Some(&first) => {
                let first = &self.documents[first];
                self.errors.push(|| duplicate(&key, first, &document));
            }
        }
    }

    fn fault(&mut self, source: &Source, offset: usize, fault: Fault) {
        self.errors.push(|| fault.into_error(source, offset));
    }

    fn too_many(&mut self, source: &Source, at: usize) {
        let fault =
            Fault::new(format!("more than {MAX_DOCUMENTS} objects in one batch")).help("apply them in parts");
        self.errors.push_first(fault.into_error(source, at));
    }

    fn too_large(&mut self, name: &str) {
        let message = format!("over {} MiB of manifests in one batch", MAX_APPLY_BYTES >> 20);
        self.errors.file(Class::Invalid, name, message, Some("apply them in parts".to_owned()));
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        let message = format!("cannot read it: {error}");
        self.errors.file(Class::Unreadable, &path.display().to_string(), message, None);
    }

    fn not_utf8(&mut self, name: &str, text: &[u8], at: usize) {
        // The replacement character stands for the first bad byte.
        let end = text.len().min(at + 80);
        let mut shown = String::from_utf8_lossy(&text[..at]).into_owned();
        shown.push_str(&String::from_utf8_lossy(&text[at..end]));
        let source = Source::new(name, shown);
        let message = format!("invalid UTF-8: byte 0x{:02x}", text[at]);
        let fault = Fault::new(message).at(at..at + 3).help("save the file as UTF-8");
        self.fault(&source, 0, fault);
    }
}

fn duplicate(key: &Key, first: &Document, again: &Document) -> ManifestError {
    let (first, again) = (&first.written, &again.written);
    let was = first.locate("");
    ManifestError {
        class: Class::Invalid,
        file: again.source.name().to_owned(),
        at: Some(again.excerpt("")),
        message: format!("duplicate {key}: an object may occur once in a batch"),
        help: Some("remove one of them, or give it another name or namespace".to_owned()),
        note: Some(format!("first given at {}:{}:{}", first.source.name(), was.line, was.column)),
    }
}

fn large(bytes: usize) -> Fault {
    Fault::new(format!("a document of {bytes} bytes, the limit is {} MiB", MAX_DOCUMENT_BYTES >> 20))
        .help("split it into several objects")
}

/// Whether the first thing in a section is a list: its items are the documents then.
fn starts_list(text: &str) -> bool {
    let mut lines = text.lines().map(|line| line.strip_prefix("---").unwrap_or(line).trim_start());
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', '%']));
    first.is_some_and(|line| line.starts_with('[') || line == "-" || line.starts_with("- "))
}
