//! What an endpoint streams: server-sent events, each a piece of an answer, and what they come to. Pure.

use serde_json::{Map, Value, json};

/// Of one event, and of an answer.
pub const LARGEST_BYTES: usize = 16 << 20;
/// Ends a stream.
const DONE: &str = "[DONE]";

/// Bytes into the data of events, as the HTML standard has them; other fields than data mean nothing here.
#[derive(Default)]
pub struct Events {
    line: Vec<u8>,
    data: Option<String>,
}

impl Events {
    /// The events that these bytes end. Err: one is too large.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_line(line.strip_suffix(b"\r").unwrap_or(&line)));
            } else {
                self.line.push(*byte);
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > LARGEST_BYTES {
                return Err(format!("an event is larger than {LARGEST_BYTES} bytes"));
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, line: &[u8]) -> Option<String> {
        if line.is_empty() {
            return self.data.take();
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.data = Some(value.into_owned()),
            }
        }
        None
    }
}

/// An answer as it comes together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    text: String,
    reasoning: String,
    tool_calls: Vec<Value>,
    finish_reason: Option<String>,
    model: Option<String>,
    usage: Map<String, Value>,
    /// The endpoint has said that this is all.
    pub done: bool,
}

impl Answer {
    /// Takes an event; answers the text that it adds. Err: what the endpoint says went wrong.
    pub fn take(&mut self, event: &str) -> Result<String, String> {
        if event.trim() == DONE {
            self.done = true;
            return Ok(String::new());
        }
        let piece: Value = serde_json::from_str(event).map_err(|error| format!("an event is no JSON: {error}"))?;
        self.add(&piece)
    }

    /// One that was not streamed, for some endpoints do not.
    pub fn whole(body: &Value) -> Result<(Self, String), String> {
        let mut answer = Self::default();
        let text = answer.add(body)?;
        answer.done = true;
        Ok((answer, text))
    }

    fn add(&mut self, piece: &Value) -> Result<String, String> {
        if let Some(error) = piece.get("error").filter(|error| !error.is_null()) {
            return Err(message(error).unwrap_or_else(|| error.to_string()));
        }
        if let Some(model) = piece["model"].as_str() {
            self.model = Some(model.to_owned());
        }
        if let Some(usage) = piece["usage"].as_object() {
            self.usage = usage.clone();
        }
        let choice = &piece["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
            self.done = true;
        }
        let says = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        let text = says["content"].as_str().or_else(|| choice["text"].as_str()).unwrap_or_default();
        self.text.push_str(text);
        // vLLM's name for it, and that of others.
        for name in ["reasoning_content", "reasoning"] {
            self.reasoning.push_str(says[name].as_str().unwrap_or_default());
        }
        for call in says["tool_calls"].as_array().into_iter().flatten() {
            self.call(call);
        }
        if self.text.len() + self.reasoning.len() > LARGEST_BYTES {
            return Err(format!("the answer is larger than {LARGEST_BYTES} bytes"));
        }
        Ok(text.to_owned())
    }

    /// Calls of tools come in pieces too: the name at once, the arguments bit by bit.
    fn call(&mut self, piece: &Value) {
        let place = piece["index"].as_u64().and_then(|place| usize::try_from(place).ok());
        let place = place.filter(|place| *place < self.tool_calls.len()).unwrap_or(self.tool_calls.len());
        if place == self.tool_calls.len() {
            let mut call = piece.clone();
            if let Some(call) = call.as_object_mut() {
                call.remove("index");
            }
            self.tool_calls.push(call);
            return;
        }
        if let Some(more) = piece["function"]["arguments"].as_str() {
            let before = self.tool_calls[place]["function"]["arguments"].as_str().unwrap_or_default();
            self.tool_calls[place]["function"]["arguments"] = json!(format!("{before}{more}"));
        }
    }
}

/// What an error of the endpoint says: OpenAI's `{"error": {"message": …}}`, or one of the other ways.
pub fn message(body: &Value) -> Option<String> {
    let error = body.get("error").unwrap_or(body);
    let said = ["message", "detail"].iter().find_map(|name| error.get(*name)?.as_str());
    said.or_else(|| error.as_str()).map(str::to_owned)
}

/// What all answers come to, in the shape of an inference's result.
pub fn result(model: &str, items: &[Value], answers: Vec<Answer>) -> Value {
    let mut usage: Map<String, Value> = Map::new();
    for (name, value) in answers.iter().flat_map(|answer| &answer.usage) {
        if let Some(number) = value.as_u64() {
            let sum = usage.get(name).and_then(Value::as_u64).unwrap_or(0).saturating_add(number);
            usage.insert(name.clone(), json!(sum));
        }
    }
    let model = answers.iter().find_map(|answer| answer.model.clone()).unwrap_or_else(|| model.to_owned());
    let item = |(index, answer): (usize, Answer)| {
        let mut item = json!({"index": index, "output": answer.text, "finish_reason": answer.finish_reason});
        if let Some(input) = items.get(index) {
            item["input"] = input.clone();
        }
        if !answer.reasoning.is_empty() {
            item["reasoning"] = json!(answer.reasoning);
        }
        if !answer.tool_calls.is_empty() {
            item["tool_calls"] = json!(answer.tool_calls);
        }
        item
    };
    let items: Vec<Value> = answers.into_iter().enumerate().map(item).collect();
    json!({"ok": true, "model": model, "items": items, "usage": usage})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_an_empty_line_wherever_the_bytes_are_cut() {
        let text = ": comment\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nevent: x\ndata:[DONE]\n\ndata: half";
        for size in [1, 2, 7, 1000] {
            let mut events = Events::default();
            let found: Vec<String> =
                text.as_bytes().chunks(size).flat_map(|part| events.take(part).expect("small")).collect();
            assert_eq!(found, ["{\"a\":\n1}", "[DONE]"], "{size}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut events = Events::default();
        assert!(events.take(&vec![b'x'; LARGEST_BYTES + 1]).is_err());
    }

    fn taken(pieces: &[Value]) -> Answer {
        let mut answer = Answer::default();
        for piece in pieces {
            answer.take(&piece.to_string()).expect("a piece");
        }
        answer
    }

    #[test]
    fn pieces_become_an_answer_and_answers_a_result() {
        let chat = |text: &str| json!({"model": "m-1", "choices": [{"delta": {"content": text}}]});
        let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 2, "details": {"x": 1}}});
        let first = taken(&[chat("Hel"), chat("lo"), end, usage]);
        assert!(first.done);
        let second =
            taken(&[json!({"choices": [{"text": "x", "finish_reason": "length"}], "usage": {"prompt_tokens": 3}})]);
        let expected = json!({"ok": true, "model": "m-1", "usage": {"prompt_tokens": 5}, "items": [
            {"index": 0, "input": "a", "output": "Hello", "finish_reason": "stop"},
            {"index": 1, "input": "b", "output": "x", "finish_reason": "length"}]});
        assert_eq!(result("m", &[json!("a"), json!("b")], vec![first, second]), expected);
    }

    #[test]
    fn calls_of_tools_and_thoughts_are_put_together() {
        let call = |piece: Value| json!({"choices": [{"delta": {"reasoning_content": "h", "tool_calls": [piece]}}]});
        let answer = taken(&[
            call(json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"a"}})),
            call(json!({"index": 0, "function": {"arguments": "\":1}"}})),
            call(json!({"index": 1, "id": "d", "function": {"name": "g", "arguments": ""}})),
        ]);
        let item = &result("m", &[], vec![answer])["items"][0];
        assert_eq!(item["reasoning"], "hhh");
        let expected = json!([{"id": "c", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            {"id": "d", "function": {"name": "g", "arguments": ""}}]);
        assert_eq!(item["tool_calls"], expected);
    }

    #[test]
    fn an_error_in_the_stream_is_one() {
        let told = Answer::default().take(r#"{"error": {"message": "out of memory"}}"#);
        assert_eq!(told, Err("out of memory".to_owned()));
        assert!(Answer::default().take("{").is_err());
    }

    #[test]
    fn what_is_not_streamed_is_taken_whole() {
        let body = json!({"model": "m", "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]});
        let (answer, text) = Answer::whole(&body).expect("an answer");
        assert_eq!((text.as_str(), answer.done), ("a", true));
    }
}
