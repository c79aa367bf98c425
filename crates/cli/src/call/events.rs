//! The events of an event stream (`text/event-stream`), and the texts in those of a chat.

use serde_json::Value;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The type; empty for a message.
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// Collects the lines of a stream to events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    next: Event,
    has_data: bool,
}

impl Events {
    /// Takes a line without its end; returns the event that the line completes.
    pub(crate) fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.next);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.next.kind = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.next.data.push('\n');
                }
                self.next.data += value;
            }
            // Comments, ids and the time before a new connection.
            _ => {}
        }
        None
    }
}

/// Returns the text in a response of a chat, or in a part of it; `None` if the value is something else.
pub(crate) fn chat_text(value: &Value) -> Option<String> {
    let object = value.get("object")?.as_str()?;
    let field = match object {
        "chat.completion" => "message",
        "chat.completion.chunk" => "delta",
        _ => return None,
    };
    let choices = value.get("choices")?.as_array()?;
    // A part that calls a tool has no text, and is shown as it is.
    if choices
        .iter()
        .any(|choice| choice.pointer(&format!("/{field}/tool_calls")).is_some_and(Value::is_array))
    {
        return None;
    }
    let content = |choice: &Value| {
        choice.pointer(&format!("/{field}/content")).and_then(Value::as_str).map(ToOwned::to_owned)
    };
    Some(choices.iter().filter_map(content).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_collected_to_events() {
        let mut events = Events::default();
        let lines =
            [": ping", "", "data: a", "data:b", "id: 7", "", "event: error", "data", "", ""];
        let found = Vec::from_iter(lines.iter().filter_map(|line| events.line(line)));
        let event = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        assert_eq!(found, [event("", "a\nb"), event("error", "")]);
    }

    #[test]
    fn the_text_of_a_chat_is_in_its_choices() {
        let chunk =
            json!({"object": "chat.completion.chunk", "choices": [{"delta": {"content": "hi"}}]});
        assert_eq!(chat_text(&chunk).as_deref(), Some("hi"));
        let whole =
            json!({"object": "chat.completion", "choices": [{"message": {"content": "hi"}}]});
        assert_eq!(chat_text(&whole).as_deref(), Some("hi"));
        let end = json!({"object": "chat.completion.chunk", "choices": [{"delta": {}}]});
        assert_eq!(chat_text(&end).as_deref(), Some(""));
        let tool =
            json!({"object": "chat.completion", "choices": [{"message": {"tool_calls": []}}]});
        assert_eq!((chat_text(&tool), chat_text(&json!("x"))), (None, None));
    }
}
