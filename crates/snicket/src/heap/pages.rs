//! The program's own pages: code and constants, which the system reads from the program's file.

/// Has the system forget which of them were used. Those that are used again are mapped again at their next use, from the
/// file's pages in memory.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "functions of the C library without a safe form")]
pub(super) fn let_go() {
    // SAFETY: `forget` has the form that is asked for, and nothing is passed to it.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Called for the program and for each library that it was linked with.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "reads the loader's tables, and calls a function of the C library without a safe form")]
unsafe extern "C" fn forget(object: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the C library passes a valid description, whose table has so many entries, for the time of this call.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    // SAFETY: it takes a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page) = usize::try_from(page) else { return 0 };
    for segment in
        segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_W == 0)
    {
        let start = base + segment.p_vaddr as usize;
        let end = (start + segment.p_filesz as usize) / page * page;
        let start = start.next_multiple_of(page);
        if start < end {
            // SAFETY: these are whole pages of a segment that is loaded from a file and never written to, so what is read
            // from them afterwards is what was read before.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(not(target_os = "linux"))]
pub(super) fn let_go() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Kilobytes of files' pages that this process has mapped.
    fn mapped() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("is in it");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    #[test]
    fn the_program_runs_on_and_has_fewer_pages() {
        // Other tests map theirs again meanwhile.
        let fewer = (0..20).any(|_| {
            let before = mapped();
            let_go();
            mapped() < before
        });
        assert!(fewer, "{} kB", mapped());
    }
}
