//! The body of a request, made from the arguments of the command and the schema of the endpoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::schema::{MULTIPART, Operation, Property, Schema, kind};

/// The input of a call, as the command line gives it.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// JSON, or a text.
    pub(crate) text: Option<String>,
    pub(crate) files: Vec<File>,
    /// The content type that the files or the text are sent with, unchanged.
    pub(crate) content_type: Option<String>,
    /// Whether the response is wanted as a stream.
    pub(crate) stream: bool,
    /// The model that the body names unless the input does: several endpoints share the path.
    pub(crate) model: Option<String>,
}

/// A file, or standard input.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) content_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// The reason why an input does not fit: what it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit(pub(crate) String);

/// Returns the body of a request.
///
/// # Errors
/// The input does not fit the schema. An input that is complete JSON is sent as it is: the server knows
/// best whether it is valid.
pub(crate) fn body(operation: &Operation, mut input: Input) -> Result<Body, Misfit> {
    if let Some(content_type) = input.content_type.take() {
        return as_it_is(content_type, input);
    }
    let form = operation.form();
    let has_file_field = form.is_some_and(|(_, schema)| file_field(schema).is_some());
    if !has_file_field {
        let takes_base64 = operation.json().is_some_and(|schema| file_field(schema).is_some());
        read_text_file(&mut input, takes_base64);
    }
    if input.text.is_none() && input.files.is_empty() {
        return Err(Misfit("nothing".into()));
    }
    match (form, operation.json()) {
        (Some((content_type, schema)), json) if json.is_none() || !input.files.is_empty() => {
            form_body(content_type, schema, &input)
        }
        (_, Some(schema)) => json_body(operation, schema, input),
        _ => as_it_is(operation.raw().unwrap_or("application/octet-stream").into(), input),
    }
}

/// Returns the body of a request whose bytes are the file, or the text.
fn as_it_is(content_type: String, mut input: Input) -> Result<Body, Misfit> {
    let file = only_file(&mut input.files)?;
    match (file, input.text) {
        (Some(_), Some(_)) => Err(Misfit("a file and a value".into())),
        (Some(file), None) => Ok(Body { content_type, bytes: file.bytes }),
        (None, text) => Ok(Body { content_type, bytes: text.unwrap_or_default().into_bytes() }),
    }
}

fn only_file(files: &mut Vec<File>) -> Result<Option<File>, Misfit> {
    let file = files.pop();
    if files.is_empty() { Ok(file) } else { Err(Misfit(format!("{} files", files.len() + 1))) }
}

/// Makes the text of a single file the text of the input, as if it were an argument. Where the endpoint
/// takes files in base64, only an object is meant as the input itself.
fn read_text_file(input: &mut Input, takes_base64: bool) {
    if input.text.is_some() || input.files.len() != 1 || input.files[0].bytes.contains(&0) {
        return;
    }
    if let Ok(text) = str::from_utf8(&input.files[0].bytes)
        && (!takes_base64 || value(text).is_object())
    {
        let text = text.strip_suffix('\n').unwrap_or(text);
        input.text = Some(text.strip_suffix('\r').unwrap_or(text).to_owned());
        input.files.clear();
    }
}

/// The value of a text: what it means if it is JSON, else itself.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn json_body(operation: &Operation, schema: Schema, input: Input) -> Result<Body, Misfit> {
    let Input { text, mut files, stream, model, .. } = input;
    let mut value = if schema.is_chat() {
        chat(text, &files)?
    } else if let Some(file) = only_file(&mut files)? {
        let raw = operation.raw();
        if text.is_none() && (schema.is_any() || raw.is_some()) {
            let content_type = raw.filter(|it| !it.contains('*')).unwrap_or(type_of(&file));
            return Ok(Body { content_type: content_type.into(), bytes: file.bytes });
        }
        with_file(schema, text.as_deref(), &file)?
    } else {
        fitting(schema, &text.unwrap_or_default())?
    };
    if let Value::Object(fields) = &mut value {
        if stream && schema.property("stream").is_some() {
            fields.entry("stream").or_insert(true.into());
        }
        if let Some(model) = model {
            fields.entry("model").or_insert(model.into());
        }
    }
    Ok(Body { content_type: "application/json".into(), bytes: value.to_string().into_bytes() })
}

/// Returns the value that a text stands for: itself, or an object with it in a field.
fn fitting(schema: Schema, text: &str) -> Result<Value, Misfit> {
    let value = value(text);
    if value.is_object() || schema.takes(kind(&value)) {
        return Ok(value);
    }
    if schema.takes("string") {
        return Ok(text.into());
    }
    let mut fields = Map::new();
    put_value(schema, &mut fields, value, text)?;
    Ok(fields.into())
}

/// Puts a value into the field that is for it, or the text if the field takes only texts.
fn put_value(
    schema: Schema,
    fields: &mut Map<String, Value>,
    value: Value,
    text: &str,
) -> Result<(), Misfit> {
    let kinds = [kind(&value), "string"];
    let field = kinds.into_iter().find_map(|kind| {
        let name = only_field(schema, fields, |property| property.schema.takes(kind))?;
        Some((name, kind))
    });
    let Some((name, taken)) = field else {
        return Err(Misfit(described(&value)));
    };
    let value = if taken == kind(&value) { value } else { text.into() };
    fields.insert(name.to_owned(), value);
    Ok(())
}

/// Returns the field that a value without a name is for: `input`, the only one that is required, or the
/// only one. Fields that have a value already do not count.
fn only_field<'a>(
    schema: Schema<'a>,
    given: &Map<String, Value>,
    is_for: impl Fn(&Property) -> bool,
) -> Option<&'a str> {
    let free = schema.properties().into_iter().filter(|it| !given.contains_key(it.name));
    let free = Vec::from_iter(free);
    let required = Vec::from_iter(free.iter().filter(|property| property.is_required));
    let meant = Vec::from_iter(free.iter().filter(|property| is_for(property)));
    let named = meant.iter().find(|property| property.name == "input");
    let field = match (named, &required[..], &meant[..]) {
        (Some(named), ..) => named,
        (None, [only], _) => only,
        (None, [], [only]) => only,
        _ => return None,
    };
    // A value that leaves other required fields empty says less than the description of the fields.
    let is_complete = required.iter().all(|property| property.name == field.name);
    (is_for(field) && is_complete).then_some(field.name)
}

/// Returns an object with the file in base64 in the field that is for it, beside given fields.
fn with_file(schema: Schema, text: Option<&str>, file: &File) -> Result<Value, Misfit> {
    let encoded = Value::from(STANDARD.encode(&file.bytes));
    let mut fields = match text.map(value) {
        None if schema.takes("string") => return Ok(encoded),
        None => Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(Misfit("a file, and a value that is not an object".into())),
    };
    let binary = |property: &Property| property.schema.is_binary();
    let names = ["image", "file", "audio", "document", "data"];
    let name =
        schema.properties().into_iter().find(|it| binary(it)).map(|it| it.name).or_else(|| {
            let texts = |property: &Property| property.schema.takes("string");
            only_field(schema, &fields, texts).or_else(|| {
                let named = names.iter().find_map(|name| schema.property(name));
                named.filter(texts).map(|property| property.name)
            })
        });
    let name = name.ok_or_else(|| Misfit(format!("the file `{}`", file.name)))?;
    fields.insert(name.to_owned(), encoded);
    Ok(fields.into())
}

/// Returns the body of a chat: an object as it is, messages, or a message of a text and images.
fn chat(text: Option<String>, files: &[File]) -> Result<Value, Misfit> {
    let given = text.as_deref().map(value);
    if files.is_empty() {
        match given {
            Some(whole @ Value::Object(_)) => return Ok(whole),
            Some(Value::Array(messages)) if messages.iter().all(Value::is_object) => {
                return Ok(json!({ "messages": messages }));
            }
            // The text of a JSON string, but a number as it was written.
            Some(Value::String(text)) => return Ok(message(text)),
            _ => return Ok(message(text)),
        }
    }
    let mut parts = Vec::new();
    if let Some(text) = text {
        let text = given.as_ref().and_then(Value::as_str).map_or(text.clone(), ToOwned::to_owned);
        parts.push(json!({"type": "text", "text": text}));
    }
    for file in files {
        let content_type = type_of(file);
        if !content_type.starts_with("image/") {
            return Err(Misfit(format!("the file `{}`, which is not an image", file.name)));
        }
        let url = format!("data:{content_type};base64,{}", STANDARD.encode(&file.bytes));
        parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    Ok(message(parts))
}

fn message(content: impl Into<Value>) -> Value {
    let content = content.into();
    json!({"messages": [{"role": "user", "content": content}]})
}

fn form_body(content_type: &str, schema: Schema, input: &Input) -> Result<Body, Misfit> {
    let mut fields = Map::new();
    let field = (!input.files.is_empty()).then(|| file_field(schema)).flatten();
    if field.is_none() && !input.files.is_empty() {
        return Err(Misfit(format!("the file `{}`", input.files[0].name)));
    }
    if let Some(text) = &input.text {
        match value(text) {
            Value::Object(given) => fields = given,
            value => {
                let names = field.map(|field| (field.to_owned(), Value::Null));
                let mut taken = Map::from_iter(names);
                put_value(schema, &mut taken, text.as_str().into(), text)
                    .map_err(|_| Misfit(described(&value)))?;
                fields.extend(taken.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
    }
    if content_type != MULTIPART {
        let pairs =
            texts(&fields).map(|(name, text)| format!("{}={}", escaped(name), escaped(&text)));
        let bytes = Vec::from_iter(pairs).join("&").into_bytes();
        return Ok(Body { content_type: content_type.into(), bytes });
    }
    multipart(&fields, field.unwrap_or_default(), &input.files)
}

/// Returns the field of a form that is for files.
fn file_field(schema: Schema<'_>) -> Option<&str> {
    schema.properties().into_iter().find(|it| it.schema.is_binary()).map(|it| it.name)
}

/// Returns the fields of a form with their texts; a list is several fields.
fn texts(fields: &Map<String, Value>) -> impl Iterator<Item = (&str, String)> {
    fields.iter().flat_map(|(name, value)| {
        let several = match value {
            Value::Array(several) => several.iter().collect(),
            single => vec![single],
        };
        several.into_iter().map(move |value| {
            let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            (name.as_str(), text)
        })
    })
}

fn multipart(fields: &Map<String, Value>, field: &str, files: &[File]) -> Result<Body, Misfit> {
    let boundary = boundary()?;
    let mut bytes = Vec::new();
    let head = |name: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"", quoted(name))
    };
    for (name, text) in texts(fields) {
        bytes.extend(format!("{}\r\n\r\n{text}\r\n", head(name)).bytes());
    }
    for file in files {
        let (name, content_type) = (quoted(&file.name), type_of(file));
        let head = head(field);
        let head = format!("{head}; filename=\"{name}\"\r\nContent-Type: {content_type}\r\n\r\n");
        bytes.extend(head.bytes());
        bytes.extend(&file.bytes);
        bytes.extend(b"\r\n");
    }
    bytes.extend(format!("--{boundary}--\r\n").bytes());
    Ok(Body { content_type: format!("{MULTIPART}; boundary={boundary}"), bytes })
}

/// Returns a boundary that no field can contain by chance.
fn boundary() -> Result<String, Misfit> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Misfit(error.to_string()))?;
    Ok(format!("litplex-{:032x}", u128::from_ne_bytes(random)))
}

/// Returns a name within the quotes of a part's header, as browsers write it.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

/// Returns a text as a part of an urlencoded form.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
            char::from(byte).to_string()
        }
        b' ' => "+".into(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Returns the content type of a file by its first bytes, else by the end of its name.
fn type_of(file: &File) -> &'static str {
    let starts = [
        (&b"\x89PNG"[..], "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"ID3", "audio/mpeg"),
    ];
    if let Some((_, found)) = starts.iter().find(|(start, _)| file.bytes.starts_with(start)) {
        return found;
    }
    if file.bytes.starts_with(b"RIFF") {
        match file.bytes.get(8..12) {
            Some(b"WEBP") => return "image/webp",
            Some(b"WAVE") => return "audio/wav",
            _ => {}
        }
    }
    match file.name.rsplit('.').next().map(str::to_lowercase).as_deref() {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("bmp") => "image/bmp",
        Some("tif" | "tiff") => "image/tiff",
        Some("mp3") => "audio/mpeg",
        Some("mp4") => "video/mp4",
        Some("csv") => "text/csv",
        Some("txt") => "text/plain",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

/// Says what a value is.
fn described(value: &Value) -> String {
    match value {
        Value::String(_) => "a text".into(),
        other => format!("a value of type {}", kind(other)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

    use super::*;

    fn text(text: &str) -> Input {
        Input { text: Some(text.into()), ..Input::default() }
    }

    fn file(name: &str, bytes: &[u8]) -> Input {
        let file = File { name: name.into(), bytes: bytes.into() };
        Input { files: vec![file], ..Input::default() }
    }

    fn sent(schema: Value, input: Input) -> Result<Value, Misfit> {
        let body = body(&Operation::for_json(&schema), input)?;
        assert_eq!(body.content_type, "application/json");
        Ok(serde_json::from_slice(&body.bytes).unwrap())
    }

    fn object(properties: Value, required: &[&str]) -> Value {
        json!({"type": "object", "properties": properties, "required": required})
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\xff";

    #[test]
    fn json_is_sent_as_it_is_and_a_text_as_a_string() {
        assert_eq!(sent(json!({}), text("[1, 2.50]")), Ok(json!([1, 2.5])));
        assert_eq!(sent(json!({}), text("some text")), Ok(json!("some text")));
        assert_eq!(sent(json!({"type": "string"}), text("42")), Ok(json!("42")));
        assert_eq!(sent(json!({"type": "number"}), text("42")), Ok(json!(42)));
        let incomplete = object(json!({"a": {"type": "string"}}), &["a"]);
        assert_eq!(sent(incomplete, text("{\"b\": 1}")), Ok(json!({"b": 1})));
    }

    #[test]
    fn a_value_without_a_name_goes_into_the_field_that_is_for_it() {
        let string = json!({"type": "string"});
        let number = json!({"type": "integer"});
        let input = object(json!({"input": string, "user": string}), &["input"]);
        assert_eq!(sent(input, text("a b")), Ok(json!({"input": "a b"})));
        let required = object(json!({"top": number, "text": string}), &["text"]);
        assert_eq!(sent(required.clone(), text("a")), Ok(json!({"text": "a"})));
        assert_eq!(sent(required, text("7")), Ok(json!({"text": "7"})));
        let only = object(json!({"top": number}), &[]);
        assert_eq!(sent(only.clone(), text("7")), Ok(json!({"top": 7})));
        assert_eq!(sent(only, text("seven")), Err(Misfit("a text".into())));
    }

    #[test]
    fn a_value_that_could_be_for_several_fields_does_not_fit() {
        let string = json!({"type": "string"});
        let fields = json!({"input": string, "b": string});
        for required in [&["input", "b"][..], &["b", "input"]] {
            let refused = sent(object(fields.clone(), required), text("x"));
            assert_eq!(refused, Err(Misfit("a text".into())));
        }
        let optional = object(json!({"a": string, "b": string}), &[]);
        assert_eq!(sent(optional, text("x")), Err(Misfit("a text".into())));
        assert_eq!(sent(json!({}), Input::default()), Err(Misfit("nothing".into())));
    }

    fn chat_schema() -> Value {
        let properties = json!({"messages": {"type": "array"}, "stream": {"type": "boolean"}});
        object(properties, &["messages"])
    }

    #[test]
    fn a_text_is_a_message_of_a_chat() {
        let hello = json!({"messages": [{"role": "user", "content": "hello"}]});
        assert_eq!(sent(chat_schema(), text("hello")), Ok(hello.clone()));
        assert_eq!(sent(chat_schema(), text("\"hello\"")), Ok(hello.clone()));
        let given = sent(chat_schema(), text(&hello["messages"].to_string()));
        assert_eq!(given, Ok(hello.clone()));
        assert_eq!(sent(chat_schema(), text(&hello.to_string())), Ok(hello));
        let number = sent(chat_schema(), text("42")).unwrap();
        assert_eq!(number["messages"][0]["content"], "42");
        let streamed = Input { stream: true, model: Some("m".into()), ..text("hello") };
        let streamed = sent(chat_schema(), streamed).unwrap();
        assert_eq!((&streamed["stream"], &streamed["model"]), (&json!(true), &json!("m")));
    }

    #[test]
    fn an_image_is_a_part_of_a_message() {
        let input = Input { text: Some("what?".into()), ..file("a.png", PNG) };
        let value = sent(chat_schema(), input).unwrap();
        let parts = &value["messages"][0]["content"];
        assert_eq!(parts[0], json!({"type": "text", "text": "what?"}));
        let url = parts[1]["image_url"]["url"].as_str().unwrap();
        assert_eq!(url, format!("data:image/png;base64,{}", STANDARD.encode(PNG)));
        assert!(sent(chat_schema(), file("a.bin", b"\0\xff")).is_err());
    }

    #[test]
    fn a_file_is_sent_as_the_schema_asks() {
        let any = body(&Operation::for_json(&json!({})), file("p.png", PNG)).unwrap();
        assert_eq!(any, Body { content_type: "image/png".into(), bytes: PNG.into() });
        let encoded = STANDARD.encode(PNG);
        let image = json!({"type": "string", "format": "byte"});
        let fields = object(json!({"name": {"type": "string"}, "image": image}), &["image"]);
        assert_eq!(sent(fields.clone(), file("p.png", PNG)), Ok(json!({"image": encoded})));
        let both = Input { text: Some("{\"name\": \"x\"}".into()), ..file("p.png", PNG) };
        assert_eq!(sent(fields, both), Ok(json!({"name": "x", "image": encoded})));
        let image = json!({"type": "string", "contentEncoding": "base64"});
        let encoded_text = object(json!({"image": image}), &["image"]);
        let text = sent(encoded_text.clone(), file("a.svg", b"<svg/>"));
        assert_eq!(text, Ok(json!({"image": STANDARD.encode("<svg/>")})));
        let whole = sent(encoded_text, file("a.json", b"{\"image\": \"eA==\"}"));
        assert_eq!(whole, Ok(json!({"image": "eA=="})));
        let number = object(json!({"n": {"type": "integer"}}), &["n"]);
        assert!(sent(number, file("p.png", PNG)).is_err());
    }

    #[test]
    fn a_file_of_text_is_read_as_an_argument() {
        assert_eq!(sent(json!({}), file("a.json", b"{\"a\": 1}\n")), Ok(json!({"a": 1})));
        let input = object(json!({"input": {"type": "string"}}), &["input"]);
        assert_eq!(sent(input, file("a.txt", b"some text\r\n")), Ok(json!({"input": "some text"})));
    }

    #[test]
    fn a_form_has_files_and_fields() {
        let schema = object(
            json!({
                "page": {"type": "array", "items": {"type": "string", "format": "binary"}},
                "lang": {"type": "string"},
            }),
            &["page"],
        );
        let form = Operation::for_content(&json!({"multipart/form-data": {"schema": schema}}));
        let input = Input { text: Some("{\"lang\": [\"de\", 1]}".into()), ..file("a\".txt", b"x") };
        let made = body(&form, input).unwrap();
        let text = String::from_utf8(made.bytes).unwrap();
        let boundary = made.content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        let wanted = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"lang\"\r\n\r\nde\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"lang\"\r\n\r\n1\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"page\"; \
             filename=\"a%22.txt\"\r\nContent-Type: text/plain\r\n\r\nx\r\n--{boundary}--\r\n"
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_form_without_files_is_urlencoded() {
        let schema = object(json!({"q": {"type": "string"}}), &["q"]);
        let form = Operation::for_content(
            &json!({"application/x-www-form-urlencoded": {"schema": schema}}),
        );
        let made = body(&form, text("a b&c=ü")).unwrap();
        assert_eq!(String::from_utf8(made.bytes).unwrap(), "q=a+b%26c%3D%C3%BC");
        assert!(body(&form, file("p.png", PNG)).is_err());
    }

    #[test]
    fn a_content_type_of_the_user_sends_a_file_unchanged() {
        let content_type = Some("image/tiff".to_owned());
        let made = body(
            &Operation::for_json(&chat_schema()),
            Input { content_type, ..file("a.json", b"{}\n") },
        );
        assert_eq!(
            made.unwrap(),
            Body { content_type: "image/tiff".into(), bytes: b"{}\n".into() }
        );
    }
}
