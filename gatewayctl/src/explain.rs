//! `explain`: the fields of a kind, from the comments of the protos that everything is generated from.

use std::fmt::Write as _;

use gateway_proto::kind::Kind;
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind as Type, MessageDescriptor,
};

use crate::cli::ExplainArgs;
use crate::output::Output;
use crate::report::{Exit, Failure};

/// Runs it.
pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<(), Failure> {
    output.raw(&text(args.path.as_deref().unwrap_or_default())?)
}

/// What a path such as `route.spec.matches` leads to.
fn text(path: &str) -> Result<String, Failure> {
    let pool = DescriptorPool::decode(gateway_proto::DESCRIPTORS)
        .map_err(|error| Failure::runtime(format!("the built-in descriptions are broken: {error}")))?;
    let message = |kind: Kind| pool.get_message_by_name(&format!("gateway.v1.{kind}"));
    if path.is_empty() {
        let about =
            |kind: &Kind| message(*kind).map(|it| comment(&it.parent_file(), it.path())).unwrap_or_default();
        let lines = Kind::ALL.iter().map(|kind| format!("{:<11} {}\n", kind.as_str(), about(kind)));
        return Ok(lines.collect());
    }
    let mut steps = path.split('.');
    let first = steps.next().unwrap_or_default().to_lowercase();
    let kind = Kind::ALL
        .iter()
        .copied()
        .find(|kind| kind.as_str().to_lowercase() == first || kind.plural() == first);
    let kind = kind.ok_or_else(|| {
        let kinds = Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
        Failure::new(Exit::Usage, format!("unknown kind {first:?}")).help(format!("there are {kinds}"))
    })?;
    let mut at =
        Place::Message(message(kind).ok_or_else(|| Failure::runtime(format!("{kind} is not described")))?);
    let mut seen = kind.to_string();
    for step in steps {
        at = at.step(step, &seen)?;
        let _ = write!(seen, ".{step}");
    }
    Ok(at.describe(&seen))
}

/// Where a path has led.
enum Place {
    Message(MessageDescriptor),
    Field(FieldDescriptor),
}

impl Place {
    fn message(&self) -> Option<MessageDescriptor> {
        match self {
            Place::Message(message) => Some(message.clone()),
            Place::Field(field) if field.is_map() => None,
            Place::Field(field) => field.kind().as_message().cloned(),
        }
    }

    fn step(&self, name: &str, seen: &str) -> Result<Place, Failure> {
        let usage = |message: String, help: String| Failure::new(Exit::Usage, message).help(help);
        let Some(message) = self.message() else {
            return Err(usage(format!("{seen} has no fields"), format!("see `gatewayctl explain {seen}`")));
        };
        let name = name.split('[').next().unwrap_or_default();
        message
            .fields()
            .find(|field| field.json_name() == name || field.name() == name)
            .map(Place::Field)
            .ok_or_else(|| {
                let known =
                    message.fields().map(|field| field.json_name().to_owned()).collect::<Vec<_>>().join(", ");
                usage(format!("{seen} has no field {name:?}"), format!("there are {known}"))
            })
    }

    fn describe(&self, seen: &str) -> String {
        let mut text = seen.to_owned();
        match self {
            Place::Message(message) => {
                let _ = writeln!(text, "\n  {}", comment(&message.parent_file(), message.path()));
            }
            Place::Field(field) => {
                let _ = writeln!(text, "  <{}>\n  {}", type_name(field), about(field));
                if let Type::Enum(values) = field.kind() {
                    text.push_str(&enumerated(&values));
                }
            }
        }
        if let Some(message) = self.message() {
            text.push_str("\nFields:\n");
            message.fields().for_each(|field| text.push_str(&line(&field)));
        }
        text
    }
}

fn line(field: &FieldDescriptor) -> String {
    let choice = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    let choice = choice.map_or("", |_| " (one of a choice)");
    format!("  {} <{}>{choice}\n    {}\n", field.json_name(), type_name(field), about(field))
}

fn enumerated(values: &EnumDescriptor) -> String {
    values.values().fold("\nValues:\n".to_owned(), |mut text, value| {
        let _ = writeln!(text, "  {}\n    {}", value.name(), comment(&values.parent_file(), value.path()));
        text
    })
}

/// A field's own words; `apiVersion`, `kind`, `metadata` and `spec` need none in the protos.
fn about(field: &FieldDescriptor) -> String {
    let own = comment(&field.parent_file(), field.path());
    match (own.as_str(), field.json_name()) {
        ("", "apiVersion") => format!("Always {}.", gateway_proto::API_VERSION),
        ("", "kind") => format!("Always {}.", field.parent_message().name()),
        ("", _) => {
            field.kind().as_message().map(|it| comment(&it.parent_file(), it.path())).unwrap_or_default()
        }
        _ => own,
    }
}

fn type_name(field: &FieldDescriptor) -> String {
    let name = |kind: &Type| match kind {
        Type::Message(message) => message.name().to_owned(),
        Type::Enum(values) => {
            values.parent_message().map_or_else(|| values.name().to_owned(), |it| it.name().to_owned())
        }
        Type::Bool => "true or false".to_owned(),
        Type::String => "string".to_owned(),
        _ => "number".to_owned(),
    };
    match field.kind() {
        Type::Message(entry) if field.is_map() => {
            format!("map of {}", name(&entry.map_entry_value_field().kind()))
        }
        kind if field.is_list() => format!("list of {}", name(&kind)),
        kind => name(&kind),
    }
}

/// The comment in front of something, as one line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let comment = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn kinds_fields_lists_maps_and_values_are_described() {
        let paths = [
            "",
            "route",
            "route.spec.matches",
            "Routes.spec.matches[0].path",
            "listener.spec.protocol",
            "route.metadata.labels",
        ];
        let all: Vec<String> =
            paths.iter().map(|path| format!("## {path}\n{}", text(path).expect(path))).collect();
        insta::assert_snapshot!("explain", all.join("\n"));
    }

    #[test]
    fn a_wrong_path_is_answered_with_the_right_names() {
        for (path, help) in [
            (
                "rout",
                "there are Listener, Route, Upstream, Policy, Certificate, Consumer, TokenIssuer, Credential, DiscoverySource",
            ),
            ("route.spek", "there are apiVersion, kind, metadata, spec"),
            ("route.metadata.name.x", "see `gatewayctl explain Route.metadata.name`"),
        ] {
            let failure = text(path).expect_err(path);
            assert_eq!((failure.exit, failure.help.as_deref()), (Exit::Usage, Some(help)));
        }
    }

    /// Documents that are wrong in one field each, and the path of that field.
    fn wrong_in_one_field(
        message: &MessageDescriptor,
        path: &str,
        wrap: &dyn Fn(Value) -> Value,
        out: &mut Vec<(String, Value)>,
    ) {
        // What is output only is not read.
        const UNREAD: [&str; 4] = ["generation", "revision", "createdAt", "updatedAt"];
        for field in message.fields().filter(|field| !UNREAD.contains(&field.json_name())) {
            let name = field.json_name().to_owned();
            let path = format!("{path}.{name}");
            let is_list = field.is_list();
            let inside = |value: Value| {
                let value = if is_list { json!([value]) } else { value };
                wrap(Value::Object([(name.clone(), value)].into_iter().collect()))
            };
            // A text may be written as a number; nothing else is two things.
            let wrong = if field.kind() == Type::String && !field.is_map() {
                json!({ "wrong": 1 })
            } else {
                json!("wrong")
            };
            out.push((path.clone(), inside(wrong)));
            if let Some(below) = field.kind().as_message().filter(|_| !field.is_map()) {
                wrong_in_one_field(below, &path, &inside, out);
            }
        }
    }

    #[test]
    fn every_field_refuses_a_value_of_another_type_and_the_error_shows_where_it_stands() {
        let pool = DescriptorPool::decode(gateway_proto::DESCRIPTORS).expect("built in");
        let mut documents = Vec::new();
        for kind in Kind::ALL {
            let message = pool.get_message_by_name(&format!("gateway.v1.{kind}")).expect("described");
            let whole = |mut document: Value| {
                let head = json!({ "apiVersion": gateway_proto::API_VERSION, "kind": kind.as_str(), "metadata": { "name": "a" } });
                let Value::Object(head) = head else { unreachable!() };
                for (name, value) in head {
                    document.as_object_mut().expect("an object").entry(name).or_insert(value);
                }
                document
            };
            wrong_in_one_field(&message, kind.as_str(), &whole, &mut documents);
        }
        assert!(documents.len() > 100, "{}", documents.len());
        for (path, document) in documents {
            let text = serde_json::to_string_pretty(&document).expect("JSON");
            let wrong = text.lines().position(|line| line.contains("\"wrong\"")).expect("it is there") + 1;
            let resolver = gateway_engine::manifest::Resolver::literal();
            let errors = gateway_engine::manifest::parse("a.json", text.as_bytes(), &resolver)
                .map(drop)
                .expect_err(&path)
                .errors;
            for error in errors {
                let line = error.at.as_ref().map_or(0, |at| at.line);
                let stands = wrong.saturating_sub(2)..=wrong;
                assert!(stands.contains(&line) && !error.message.is_empty(), "{path} in {text}\n{error:#?}");
            }
        }
    }

    #[test]
    fn every_field_has_a_description() {
        let pool = DescriptorPool::decode(gateway_proto::DESCRIPTORS).expect("built in");
        for kind in Kind::ALL {
            let mut open = vec![pool.get_message_by_name(&format!("gateway.v1.{kind}")).expect("described")];
            while let Some(message) = open.pop() {
                for field in message.fields() {
                    assert_ne!(about(&field), "", "{}", field.full_name());
                    open.extend(field.kind().as_message().filter(|_| !field.is_map()).cloned());
                }
            }
        }
    }
}
