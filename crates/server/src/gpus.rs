//! The GPUs of the machine, where endpoints are on any.

use std::sync::Arc;

use litplex_core::Device;
use litplex_devices::Gpus;

use crate::controls::EndpointControls;

/// Returns a reader of the GPUs, if one of these endpoints is on any.
pub(crate) fn gpus_of(endpoints: &[Arc<EndpointControls>]) -> Option<Arc<Gpus>> {
    let has_gpu = |controls: &Arc<EndpointControls>| controls.devices.iter().any(is_gpu);
    endpoints.iter().any(has_gpu).then(Gpus::nvidia).map(Arc::new)
}

/// Returns whether a device is a GPU of NVIDIA.
pub(crate) fn is_gpu(device: &Device) -> bool {
    device.as_str().starts_with("cuda")
}
