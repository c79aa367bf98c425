//! A GGUF file: its metadata, and its tensors on the CPU.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value};
use litplex::Result;

pub(crate) struct Gguf {
    content: Content,
    file: BufReader<File>,
}

impl Gguf {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let mut file = BufReader::new(File::open(path)?);
            Ok(Self { content: Content::read(&mut file)?, file })
        };
        open().map_err(|error| format!("cannot read {}: {error}", path.display()).into())
    }

    pub(crate) fn tensor(&mut self, name: &str) -> Result<QTensor> {
        Ok(self.content.tensor(&mut self.file, name, &Device::Cpu)?)
    }

    pub(crate) fn value(&self, key: &str) -> Result<&Value> {
        let value = self.content.metadata.get(key);
        value.ok_or_else(|| format!("the GGUF file has no `{key}`").into())
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        Ok(usize::try_from(self.value(key)?.to_u32()?)?)
    }

    pub(crate) fn float(&self, key: &str) -> Result<f32> {
        Ok(self.value(key)?.to_f32()?)
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let values = self.value(key)?.to_vec()?.iter();
        Ok(values
            .map(|value| value.to_string().map(String::as_str))
            .collect::<candle_core::Result<_>>()?)
    }
}
