"""What Linux's own test projects check about clone, pidfds and namespaces, case by case, and where it is checked here.

LTP: testcases/kernel/syscalls; selftests: tools/testing/selftests of the kernel. Facts only, no line of theirs. An
entry names a test of this tree, or says after ``-`` why the public interface cannot say the case.
"""

from __future__ import annotations

from typing import Final

_SETS = "conformance/test_every_set.py::test_sets_without_namespaces"
_NEW = "conformance/test_every_set.py::test_sets_with_namespaces"
_MISUSE = "conformance/test_misuse.py::"
_PIDFD = "conformance/test_pidfd_facts.py::"
_NO_POINTERS = "- there are no pointers and sizes in this interface"
_NO_UNSHARE = "- there is no unshare() here: a thread is given what is its own before its body"

CASES: Final[dict[str, str]] = {
    # ---- LTP: clone ----
    "ltp clone01 a child is waited for": "test_sharing.py::test_the_classic_sample_with_plain_os_wait",
    "ltp clone02 all shared, nothing shared": _SETS,
    "ltp clone03 the pid": _PIDFD + "test_the_pid_is_the_tasks_own",
    "ltp clone04 no function": _MISUSE + "test_bodies_that_are_none",
    "ltp clone04 no stack": _NO_POINTERS,
    "ltp clone05 VM|VFORK suspends the caller": _SETS,
    "ltp clone06 environment is copied": _MISUSE + "test_the_environment_is_the_creators",
    "ltp clone07 a body that returns": _PIDFD + "test_the_pid_is_the_tasks_own",
    "ltp clone08 CLONE_PARENT": _SETS,
    "ltp clone08 CLONE_CHILD_SETTID, CLONE_PARENT_SETTID": _PIDFD + "test_the_pid_is_the_tasks_own",
    "ltp clone08 CLONE_THREAD": _SETS,
    "ltp clone09 NEWNET has sysctls of its own": _NEW,
    "ltp clone10 CLONE_SETTLS": _PIDFD + "test_thread_local_storage_is_the_tasks_own",
    "ltp clone11 namespaces without CAP_SYS_ADMIN": _MISUSE + "test_a_namespace_without_the_privilege",
    # ---- LTP: clone3 ----
    "ltp clone301 exit signals": "test_sharing.py::test_the_exit_signal_arrives",
    "ltp clone301 FS": _SETS,
    "ltp clone301 NEWPID": _NEW,
    "ltp clone301 a signal by the pidfd": _PIDFD + "test_an_ended_task_gets_no_signal",
    "ltp clone302 invalid args, zero, short and extra size": _NO_POINTERS,
    "ltp clone302 sighand-no-VM, thread-no-sighand, fs-newns": _MISUSE + "test_sets_that_clone3_refuses",
    "ltp clone302 invalid pidfd, childtid, parenttid": _NO_POINTERS,
    "ltp clone302 invalid signal": _MISUSE + "test_exit_signals_that_are_none",
    "ltp clone302 zero-stack-size, invalid-stack": _MISUSE + "test_stacks_that_are_none",
    "ltp clone303 INTO_CGROUP": _MISUSE + "test_a_control_group_that_is_none",
    "ltp clone304 namespaces without CAP_SYS_ADMIN": _MISUSE + "test_a_namespace_without_the_privilege",
    "ltp clone304 set_tid without CAP_SYS_ADMIN": _MISUSE + "test_a_pid_without_the_privilege",
    # ---- LTP: unshare, setns ----
    "ltp unshare01 files, fs, mounts": "test_threads.py::test_a_thread_has_of_its_own_what_its_flags_leave_out",
    "ltp unshare02 unknown bits": "kernels/test_rules_kernel.py::test_single_bits_named_or_not",
    "ltp unshare03 EMFILE": _NO_UNSHARE,
    "ltp unshare04 NEWNS takes the directory along": _NEW,
    "ltp unshare05 the first child is pid 1": _NEW,
    "ltp setns01 invalid type": _PIDFD + "test_its_namespaces_are_entered_by_the_pidfd",
    "ltp setns01 no descriptor, a file, another type": "- a Task has a pidfd, and each type of namespace",
    "ltp setns02 UTS and IPC are entered": _PIDFD + "test_its_namespaces_are_entered_by_the_pidfd",
    # ---- LTP: pidfd ----
    "ltp pidfd_open01 close-on-exec": _PIDFD + "test_it_is_closed_by_execve_and_says_whom_it_means",
    "ltp pidfd_open02 expired pid": _PIDFD + "test_an_ended_task_gets_no_signal",
    "ltp pidfd_open02 invalid pid, invalid flags": "- a Task opens its own pidfd",
    "ltp pidfd_open03 poll, then wait": _PIDFD + "test_it_is_readable_at_the_end_and_not_before",
    "ltp pidfd_open04 PIDFD_NONBLOCK": _PIDFD + "test_waiting_for_it",
    "ltp pidfd_send_signal01 siginfo": "- send_signal() takes a number alone",
    "ltp pidfd_send_signal02 invalid flags": _PIDFD + "test_what_is_no_signal_and_no_flag",
    "ltp pidfd_send_signal02 no pidfd": "- a Task has a pidfd",
    "ltp pidfd_send_signal02 another user's": _PIDFD + "test_a_task_of_another_user_is_not_signalled",
    "ltp pidfd_send_signal03 recycled pid": _PIDFD + "test_a_recycled_pid_is_somebody_else",
    "ltp pidfd_getfd01, 02": _PIDFD + "test_its_descriptors_are_to_be_had",
    # ---- selftests: clone3 ----
    "selftests clone3 sizes": _NO_POINTERS,
    "selftests clone3 exit signals that are none": _MISUSE + "test_exit_signals_that_are_none",
    "selftests clone3 NEWPID": _NEW,
    "selftests clone3_clear_sighand both": _MISUSE + "test_sets_that_clone3_refuses",
    "selftests clone3_clear_sighand handlers": _SETS,
    "selftests clone3_set_tid taken": _MISUSE + "test_a_pid_that_is_taken",
    "selftests clone3_set_tid none, too many": _MISUSE + "test_pids_that_are_none",
    "selftests clone3_cap_checkpoint_restore": _MISUSE + "test_a_pid_without_the_privilege",
    # ---- selftests: pidfd ----
    "selftests pidfd_test signal": _PIDFD + "test_an_ended_task_gets_no_signal",
    "selftests pidfd_test recycled pid": _PIDFD + "test_a_recycled_pid_is_somebody_else",
    "selftests pidfd_test poll, exec by a thread, leader's exit": "- about programs with threads, not their creator",
    "selftests pidfd_poll_test": _PIDFD + "test_it_is_readable_at_the_end_and_not_before",
    "selftests pidfd_wait wait_simple, wait_nonblock": _PIDFD + "test_waiting_for_it",
    "selftests pidfd_wait wait_states": _PIDFD + "test_stops_and_ends_are_waited_for",
    "selftests pidfd_fdinfo_test": _PIDFD + "test_it_is_closed_by_execve_and_says_whom_it_means",
    "selftests pidfd_getfd_test": _PIDFD + "test_its_descriptors_are_to_be_had",
    "selftests pidfd_setns_test": _PIDFD + "test_its_namespaces_are_entered_by_the_pidfd",
    "selftests pidfd_info_test": "kernels/test_wait.py::test_a_foreign_wait_steals_it",
    "selftests pidfd_autoreap_test": "kernels/test_autoreap.py::test_its_pidfd_tells_how_it_ended",
    "selftests pidfd_bind_mount, file_handle, setattr, xattr": "- about the file system of pidfds, not about tasks",
}
"""By case: the test below tests/ that holds it, or why there is none."""
