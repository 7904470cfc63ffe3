/* long tc_clone3(struct clone_args *args, size_t size, void (*fn)(void *), void *arg)
 *
 * The child starts on the stack that args names, so nothing of the caller's frame may be used there:
 * fn and arg travel in registers, which clone keeps. fn must not return.
 *
 * long tc_clone(uint64_t flags, void *top, struct tc_clone_words *words, void (*fn)(void *), void *arg)
 *
 * The same by clone(2): the flags with the exit signal in their lowest byte, the top of the stack, and the three
 * pointers {parent_tid, child_tid, tls}.
 */

/* What the child of either does: calls the function in x10 with x11; no frame stands above it. */
    .macro begin
    .cfi_undefined x30
    mov x29, xzr
    mov x30, xzr
    mov x0, x11
    blr x10
    brk #1
    .endm

    .text
    .globl tc_clone3
    .hidden tc_clone3
    .type tc_clone3, %function
tc_clone3:
    .cfi_startproc
    mov x10, x2
    mov x11, x3
    mov x8, #435
    svc #0
    cbz x0, 1f
    ret
1:
    begin
    .cfi_endproc
    .size tc_clone3, .-tc_clone3

    .globl tc_clone
    .hidden tc_clone
    .type tc_clone, %function
tc_clone:
    .cfi_startproc
    and x1, x1, #-16
    mov x10, x3
    mov x11, x4
    ldr x4, [x2, #8]
    ldr x3, [x2, #16]
    ldr x2, [x2]
    mov x8, #220
    svc #0
    cbz x0, 2f
    ret
2:
    begin
    .cfi_endproc
    .size tc_clone, .-tc_clone

    .section .note.GNU-stack, "", %progbits
