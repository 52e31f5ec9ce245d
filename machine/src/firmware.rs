//! UEFI firmware: OVMF's pair of flash images. The code image is used in place; the variable store
//! is copied for each run, since the firmware writes to it.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Code image and the variable store that belongs to it, where distributions put them, best first.
const PAIRS: [(&str, &str); 5] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
];

/// Whether UEFI firmware is installed on this host.
pub fn uefi_firmware_present() -> bool {
    PAIRS.iter().any(exists)
}

fn exists((code, vars): &(&str, &str)) -> bool {
    Path::new(code).is_file() && Path::new(vars).is_file()
}

/// A pair of flash images, ready to be attached.
pub(crate) struct Firmware {
    /// Read-only code.
    pub code: PathBuf,
    /// A private, writable variable store.
    pub vars: PathBuf,
}

impl Firmware {
    /// Finds the pair and copies its variable store into the run's directory.
    pub fn prepare(run_dir: &Path) -> Result<Self> {
        Self::prepare_from(&PAIRS, run_dir)
    }

    fn prepare_from(pairs: &[(&str, &str)], run_dir: &Path) -> Result<Self> {
        let (code, template) =
            pairs.iter().find(|pair| exists(pair)).ok_or_else(|| Error::FirmwareMissing {
                looked_for: pairs.iter().map(|(code, _)| PathBuf::from(code)).collect(),
            })?;
        let vars = run_dir.join("ovmf-vars.fd");
        // Not `fs::copy`: that would copy the template's read-only permission bits too.
        std::fs::read(template)
            .and_then(|bytes| std::fs::write(&vars, bytes))
            .map_err(Error::io(format!("copy {template} to {}", vars.display())))?;
        Ok(Self { code: code.into(), vars })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_both_images_and_copies_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let code = dir.path().join("code.fd");
        let vars = dir.path().join("vars.fd");
        let pairs = [(code.to_str().unwrap(), vars.to_str().unwrap())];
        std::fs::write(&code, b"code").unwrap();
        let error = Firmware::prepare_from(&pairs, dir.path()).err().unwrap().to_string();
        assert!(error.contains("code.fd") && error.contains("cargo xtask setup"), "{error}");

        std::fs::write(&vars, b"vars").unwrap();
        let firmware = Firmware::prepare_from(&pairs, dir.path()).unwrap();
        assert_eq!(firmware.code, code);
        assert_ne!(firmware.vars, vars);
        assert_eq!(std::fs::read(&firmware.vars).unwrap(), b"vars");
    }
}
