//! The tokens of a chat: the tokenizer and the chat template of a GGUF file.

use candle_core::quantized::gguf_file::Value;
use litplex::Result;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::gguf::Gguf;

/// The message that the template puts before a chat that has no system message.
const SYSTEM: &str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
/// The type of tokens that are no text.
const CONTROL: i32 = 3;

pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// The bytes of each token; none of those that are no text.
    bytes: Vec<Vec<u8>>,
    begin: u32,
    end: u32,
    end_of_text: u32,
}

impl Tokens {
    pub(crate) fn load(gguf: &Gguf) -> Result<Self> {
        let pre = gguf.value("tokenizer.ggml.pre")?.to_string()?;
        if pre != "smollm" {
            return Err(format!("unknown pre-tokenizer `{pre}`; expected `smollm`").into());
        }
        let texts = gguf.texts("tokenizer.ggml.tokens")?;
        let types = gguf.value("tokenizer.ggml.token_type")?.to_vec()?;
        let id = |wanted| {
            let found = texts.iter().position(|text| *text == wanted);
            found
                .map(|id| id as u32)
                .ok_or_else(|| format!("the GGUF file has no token `{wanted}`"))
        };
        let bytes = texts.iter().zip(types).map(|(text, kind)| {
            let is_text = !matches!(kind, Value::I32(CONTROL));
            if is_text { text.chars().filter_map(byte).collect() } else { Vec::new() }
        });
        Ok(Self {
            bytes: bytes.collect(),
            begin: id("<|im_start|>")?,
            end: id("<|im_end|>")?,
            end_of_text: id("<|endoftext|>")?,
            tokenizer: tokenizer(&texts, &gguf.texts("tokenizer.ggml.merges")?)?,
        })
    }

    /// Returns the tokens of a chat, up to where the assistant answers: `(role, content)` for each
    /// message.
    ///
    /// Only the template's own tokens begin and end a message. Content that spells them is text.
    pub(crate) fn prompt(&self, messages: &[(&str, String)]) -> Result<Vec<u32>> {
        let mut prompt = Vec::new();
        if messages.first().is_some_and(|(role, _)| *role != "system") {
            self.put_message(&mut prompt, "system", SYSTEM)?;
        }
        for (role, content) in messages {
            self.put_message(&mut prompt, role, content)?;
        }
        prompt.push(self.begin);
        self.put_text(&mut prompt, "assistant\n")?;
        Ok(prompt)
    }

    /// Returns whether the model ends its answer with this token.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        token == self.end || token == self.end_of_text
    }

    /// Returns the bytes of a token: UTF-8, if those of its neighbours are added.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    fn put_message(&self, prompt: &mut Vec<u32>, role: &str, content: &str) -> Result<()> {
        prompt.push(self.begin);
        self.put_text(prompt, &format!("{role}\n{content}"))?;
        prompt.push(self.end);
        self.put_text(prompt, "\n")
    }

    fn put_text(&self, prompt: &mut Vec<u32>, text: &str) -> Result<()> {
        prompt.extend(self.tokenizer.encode_fast(text, false)?.get_ids());
        Ok(())
    }
}

/// Returns the tokenizer. It knows no special tokens, so that no text becomes one.
fn tokenizer(tokens: &[&str], merges: &[&str]) -> Result<Tokenizer> {
    let vocabulary: Vocab =
        tokens.iter().zip(0..).map(|(text, id)| ((*text).to_owned(), id)).collect();
    let pair = |merge: &&str| {
        let (left, right) =
            merge.split_once(' ').ok_or_else(|| format!("invalid merge `{merge}`"))?;
        Ok((left.to_owned(), right.to_owned()))
    };
    let merges = merges.iter().map(pair).collect::<Result<_>>()?;
    let mut tokenizer =
        Tokenizer::new(BPE::builder().vocab_and_merges(vocabulary, merges).build()?);
    // What `smollm` means: each digit is a word, and so are the words of GPT-2.
    let parts: Vec<PreTokenizerWrapper> =
        vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
    Ok(tokenizer)
}

/// Returns the byte that a character of a token stands for. GPT-2 writes the bytes that are no
/// printable character of Latin-1 as the characters from U+0100, in their order.
fn byte(character: char) -> Option<u8> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(character).checked_sub(0x100) {
        None => u8::try_from(u32::from(character)).ok().filter(is_printable),
        Some(index) => (0..=u8::MAX).filter(|byte| !is_printable(byte)).nth(index as usize),
    }
}
