//! Reads the generated types from a tree of values, and says where something does not fit. Unknown fields are
//! collected and skipped, so that all of an object's are shown at once; any other misfit ends that object.
//!
//! The generated readers take a field's proto name (`policy_refs`) as well as its JSON name (`policyRefs`), as
//! proto3 JSON demands; what people are shown is the JSON name only.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;

use gateway_proto::API_VERSION;
use gateway_proto::kind::{Kind, Resource};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::error::Fault;
use super::suggest::closest;
use super::tree::{Node, Style, Value};

/// The object that a tree says, or everything that is wrong with it.
pub(super) fn resource(root: &Node<'_>) -> Result<Resource, Vec<Fault>> {
    if !matches!(root.value, Value::Object(_)) {
        return Err(vec![
            Fault::new(format!("expected an object, found {}", describe(root))).at(root.span.clone()).help(
                format!("a manifest has the fields apiVersion: {API_VERSION}, kind, metadata and spec"),
            ),
        ]);
    }
    let mut faults = Vec::new();
    let kind = keep(&mut faults, kind_of(root));
    keep(&mut faults, api_version(root));
    let Some(kind) = kind else { return Err(faults) };
    let unknown = RefCell::new(Vec::new());
    let read = Resource::deserialize(kind, De { node: root, unknown: &unknown });
    faults.extend(unknown.into_inner());
    let resource = keep(&mut faults, read.map_err(|fault| fault.at(root.span.clone())));
    match resource {
        Some(resource) if faults.is_empty() => named(root, resource).map_err(|fault| vec![fault]),
        _ => Err(faults),
    }
}

fn keep<T>(faults: &mut Vec<Fault>, result: Result<T, Fault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn kind_of(root: &Node<'_>) -> Result<Kind, Fault> {
    let names = || Kind::ALL.iter().map(|kind| kind.as_str());
    let one_of = || names().collect::<Vec<_>>().join(", ");
    let Some(node) = root.get("kind").filter(|node| !node.is_null()) else {
        return Err(Fault::new("`kind` is missing")
            .at(head_of(root))
            .help(format!("expected one of {}", one_of())));
    };
    let Value::Scalar(name, _) = &node.value else {
        return Err(Fault::new(format!("`kind` is a name, found {}", describe(node))).at(node.span.clone()));
    };
    Kind::from_name(name).ok_or_else(|| {
        let guess = closest(name, names()).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
        Fault::new(format!("unknown kind {name:?}"))
            .at(node.span.clone())
            .help(format!("{guess}expected one of {}", one_of()))
    })
}

fn api_version(root: &Node<'_>) -> Result<(), Fault> {
    let add = format!("expected apiVersion: {API_VERSION}");
    match root.get("apiVersion").or_else(|| root.get("api_version")) {
        Some(Node { value: Value::Scalar(version, _), .. }) if version == API_VERSION => Ok(()),
        Some(node) => {
            Err(Fault::new(format!("unknown apiVersion {}", describe(node))).at(node.span.clone()).help(add))
        }
        None => Err(Fault::new("`apiVersion` is missing").at(head_of(root)).help(add)),
    }
}

fn named(root: &Node<'_>, resource: Resource) -> Result<Resource, Fault> {
    if resource.metadata().is_some_and(|metadata| !metadata.name.is_empty()) {
        return Ok(resource);
    }
    let at = match root.get("metadata") {
        Some(metadata) => metadata.get("name").map_or_else(|| head_of(metadata), |name| name.span.clone()),
        None => head_of(root),
    };
    Err(Fault::new("`metadata.name` is missing").at(at).help("give it a name: metadata: { name: ... }"))
}

/// The first key of an object: a short thing to point at for the whole.
fn head_of(node: &Node<'_>) -> Range<usize> {
    match &node.value {
        Value::Object(entries) => entries.first().map_or(node.span.clone(), |(key, _)| key.span.clone()),
        _ => node.span.clone(),
    }
}

/// How a value is called in a message.
fn describe(node: &Node<'_>) -> String {
    match &node.value {
        _ if node.is_null() => "nothing".to_owned(),
        Value::Scalar(text, _) if text.chars().count() > 80 => {
            format!("{:?}...", text.chars().take(80).collect::<String>())
        }
        Value::Scalar(text, Style::Plain) => text.to_string(),
        Value::Scalar(text, _) => format!("{text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The names people are shown: without the proto spellings.
fn json_names(fields: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    fields.iter().copied().filter(|name| !name.contains('_'))
}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Fault::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Map => "an object".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Str(text) => format!("{text:?}"),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            other => other.to_string(),
        };
        let expected = expected.to_string();
        Fault::new(format!("expected {}, found {found}", expected.trim_start_matches("expected ")))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(given: &str, allowed: &'static [&'static str]) -> Self {
        let guess = closest(given, allowed.iter().copied()).map(|name| format!("did you mean {name}? "));
        Fault::new(format!("unknown value {given:?}")).help(format!(
            "{}allowed: {}",
            guess.unwrap_or_default(),
            allowed.join(", ")
        ))
    }

    fn unknown_field(given: &str, allowed: &'static [&'static str]) -> Self {
        let guess = closest(given, json_names(allowed)).map(|name| format!("did you mean `{name}`? "));
        let names = json_names(allowed).collect::<Vec<_>>().join(", ");
        Fault::new(format!("unknown field `{given}`"))
            .help(format!("{}allowed: {names}", guess.unwrap_or_default()))
    }

    /// Keys are unique in the tree already: this is a second member of a choice, or both spellings of a field.
    fn duplicate_field(field: &'static str) -> Self {
        Fault::new(format!("`{field}` cannot stand beside another of its alternatives"))
            .help("keep one of them: these fields exclude each other")
    }
}

impl de::StdError for Fault {}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Reads one value.
struct De<'de, 's> {
    node: &'de Node<'de>,
    unknown: &'s RefCell<Vec<Fault>>,
}

impl<'de, 's> De<'de, 's> {
    fn child(&self, node: &'de Node<'de>) -> De<'de, 's> {
        De { node, unknown: self.unknown }
    }

    fn misfit(&self, expected: &str) -> Fault {
        Fault::new(format!("expected {expected}, found {}", describe(self.node))).at(self.node.span.clone())
    }

    /// Reads a value below and gives its errors their place.
    fn seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        let node = self.node;
        seed.deserialize(self).map_err(|fault| match fault.span {
            Some(_) => fault,
            None if is_about_number(&fault.message) => explain_number(node).at(node.span.clone()),
            None => fault.at(node.span.clone()),
        })
    }
}

/// The generated readers take numbers through an untagged enum and `FromStr`, whose messages help nobody.
fn is_about_number(message: &str) -> bool {
    message.contains("untagged enum")
        || message.contains("invalid digit found")
        || message.contains("number too ")
        || message.contains("cannot parse integer")
}

fn explain_number(node: &Node<'_>) -> Fault {
    let found = describe(node);
    let Value::Scalar(text, _) = &node.value else {
        return Fault::new(format!("expected a whole number, found {found}"));
    };
    match text.parse::<i128>() {
        Ok(number) if number < 0 && number >= i128::from(i32::MIN) => {
            Fault::new(format!("{found} is too small")).help("the smallest value is 0")
        }
        Ok(number) => {
            let most = if number > i128::from(u32::MAX) { u32::MAX.into() } else { i64::from(i32::MAX) };
            Fault::new(format!("{found} does not fit")).help(format!("the largest value is {most}"))
        }
        Err(_) => Fault::new(format!("expected a whole number, found {found}")),
    }
}

impl<'de> Deserializer<'de> for De<'de, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            _ if self.node.is_null() => visitor.visit_unit(),
            Value::Scalar(text, Style::Plain) => plain(text, visitor),
            Value::Scalar(text, _) => visitor.visit_str(text),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar(text, _) if !self.node.is_null() => visitor.visit_str(text),
            _ if self.node.is_null() => {
                Err(self.misfit("a string").help("leave the field out, or write \"\""))
            }
            Value::Object(entries) if entries.iter().any(|(key, _)| key.text == "$file") => {
                Err(self.misfit("a string").help("`$file` stands alone: { $file: ./name }"))
            }
            _ => Err(self.misfit("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar(text, Style::Plain | Style::Filled) if boolean(text).is_some() => {
                visitor.visit_bool(boolean(text).is_some_and(|on| on))
            }
            _ => Err(self.misfit("true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { de: &self, rest: items.iter() }),
            _ if self.node.is_null() => visitor.visit_seq(Items { de: &self, rest: [].iter() }),
            _ => Err(self
                .misfit("a list")
                .help("write the value as an item: [ ... ], or on a line of its own after `- `")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = match &self.node.value {
            Value::Object(entries) => entries.as_slice(),
            _ if self.node.is_null() => &[],
            _ => return Err(self.misfit("an object")),
        };
        visitor.visit_map(&mut Entries {
            de: &self,
            rest: entries.iter(),
            value: None,
            at: None,
            fields: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Object(entries) = &self.node.value else {
            let names = json_names(fields).collect::<Vec<_>>().join(", ");
            return Err(self.misfit("an object").help(format!("its fields are {names}")));
        };
        let mut access =
            Entries { de: &self, rest: entries.iter(), value: None, at: None, fields: Some(fields) };
        let read = visitor.visit_map(&mut access);
        // Without a place it is about the field read last.
        read.map_err(|fault| fault.at(access.at.unwrap_or_else(|| self.node.span.clone())))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// An unquoted scalar as YAML 1.2's core schema has it.
fn plain<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Fault> {
    if let Some(on) = boolean(text) {
        return visitor.visit_bool(on);
    }
    let based = |prefix: &str, radix| {
        text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    if let Some(number) = based("0x", 16).or_else(|| based("0o", 8)).or_else(|| text.parse().ok()) {
        return visitor.visit_u64(number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return visitor.visit_i64(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && text.bytes().any(|b| b.is_ascii_digit()) => {
            visitor.visit_f64(number)
        }
        _ => visitor.visit_str(text),
    }
}

struct Items<'de, 's, 'd> {
    de: &'d De<'de, 's>,
    rest: std::slice::Iter<'de, Node<'de>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_, '_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.rest.next().map(|node| self.de.child(node).seed(seed)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'de, 's, 'd> {
    de: &'d De<'de, 's>,
    rest: std::slice::Iter<'de, (super::tree::Key<'de>, Node<'de>)>,
    value: Option<&'de Node<'de>>,
    /// The key read last.
    at: Option<Range<usize>>,
    /// The fields there are; `None`: any key will do.
    fields: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_, '_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        for (key, value) in self.rest.by_ref() {
            if let Some(fields) = self.fields.filter(|fields| !fields.contains(&&*key.text)) {
                let fault: Fault = de::Error::unknown_field(&key.text, fields);
                self.de.unknown.borrow_mut().push(fault.at(key.span.clone()));
                continue;
            }
            self.value = Some(value);
            self.at = Some(key.span.clone());
            let key = de::value::StrDeserializer::<Fault>::new(&key.text);
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let node = self.value.take().ok_or_else(|| Fault::new("a value without a key"))?;
        self.de.child(node).seed(seed)
    }
}
