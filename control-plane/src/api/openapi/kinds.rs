//! The kinds as JSON Schema, from their protos: proto3 JSON names and forms, comments as descriptions.

use std::collections::HashMap;

use gateway_proto::DESCRIPTORS;
use gateway_proto::kind::Kind;
use prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, FileDescriptor, Kind as Type, MessageDescriptor,
};
use serde_json::{Map, Value, json};

/// Comments by file and path inside it.
type Comments = HashMap<(String, Vec<i32>), String>;

/// Adds every kind and what it is made of.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("made by this build");
    let comments: Comments = pool.files().flat_map(|file| comments(&file)).collect();
    for kind in Kind::ALL {
        let message =
            pool.get_message_by_name(&format!("gateway.v1.{kind}")).expect("every kind is a message");
        add_message(&message, &comments, schemas);
    }
}

fn comments(file: &FileDescriptor) -> Vec<((String, Vec<i32>), String)> {
    let name = file.name().to_owned();
    let info = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
    let comment = |location: prost_types::source_code_info::Location| {
        let lines = location.leading_comments?;
        let text = lines.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Some(((name.clone(), location.path), text.trim().to_owned()))
    };
    info.location.into_iter().filter_map(comment).collect()
}

fn add_message(message: &MessageDescriptor, comments: &Comments, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(message.name()) {
        return;
    }
    // Before its fields: a message may hold itself.
    schemas.insert(message.name().to_owned(), Value::Null);
    let comment =
        |path: &[i32]| comments.get(&(message.parent_file().name().to_owned(), path.to_vec())).cloned();
    let mut properties = Map::new();
    for field in message.fields() {
        let mut schema = field_schema(&field, comments, schemas);
        let options = field.options();
        let secret = options.get_field_by_name("debug_redact").and_then(|it| it.as_bool()) == Some(true);
        if let Some(schema) = schema.as_object_mut() {
            schema.extend(comment(field.path()).map(|text| ("description".to_owned(), json!(text))));
            schema.extend(secret.then(|| ("format".to_owned(), json!("password"))));
        }
        properties.insert(field.json_name().to_owned(), schema);
    }
    let mut description = comment(message.path()).unwrap_or_default();
    // A synthetic one is how proto3 marks an optional field.
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let names = oneof.fields().map(|field| field.json_name().to_owned()).collect::<Vec<_>>().join(", ");
        description = format!("{description} At most one of {names}.").trim().to_owned();
    }
    let schema = json!({
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": false,
    });
    schemas.insert(message.name().to_owned(), schema);
}

fn field_schema(field: &FieldDescriptor, comments: &Comments, schemas: &mut Map<String, Value>) -> Value {
    if let (true, Type::Message(entry)) = (field.is_map(), field.kind()) {
        let value = single(&entry.map_entry_value_field(), comments, schemas);
        return json!({ "type": "object", "additionalProperties": value });
    }
    let single = single(field, comments, schemas);
    if field.cardinality() == Cardinality::Repeated {
        json!({ "type": "array", "items": single })
    } else {
        single
    }
}

fn single(field: &FieldDescriptor, comments: &Comments, schemas: &mut Map<String, Value>) -> Value {
    match field.kind() {
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
        Type::Uint32 | Type::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Type::Double | Type::Float => json!({ "type": "number" }),
        // proto3 JSON: 64-bit integers are strings, bytes are base64.
        Type::Int64 | Type::Sint64 | Type::Sfixed64 | Type::Uint64 | Type::Fixed64 => {
            json!({ "type": "string" })
        }
        Type::String => json!({ "type": "string" }),
        Type::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::Enum(values) => {
            let names: Vec<_> = values.values().map(|value| value.name().to_owned()).collect();
            json!({ "type": "string", "enum": names })
        }
        Type::Message(message) => {
            add_message(&message, comments, schemas);
            json!({ "$ref": format!("#/components/schemas/{}", message.name()) })
        }
    }
}
