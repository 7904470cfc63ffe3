/* long tc_clone3(struct clone_args *args, size_t size, void (*fn)(void *), void *arg)
 *
 * The child starts on the stack that args names, so nothing of the caller's frame may be used there:
 * fn and arg travel in registers, which clone keeps. fn must not return.
 *
 * long tc_clone(uint64_t flags, void *top, struct tc_clone_words *words, void (*fn)(void *), void *arg)
 *
 * The same by clone(2): the flags with the exit signal in their lowest byte, the top of the stack, and the three
 * pointers {parent_tid, child_tid, tls}.
 *
 * void tc_sigreturn(void): what a signal handler returns to.
 */
    .text
    .globl tc_clone3
    .hidden tc_clone3
    .type tc_clone3, @function
tc_clone3:
    .cfi_startproc
    movl $435, %eax
    movq %rdx, %r8
    movq %rcx, %r9
    syscall
    testq %rax, %rax
    jz 1f
    ret
1:
    .cfi_undefined rip
    xorl %ebp, %ebp
    movq %r9, %rdi
    call *%r8
    hlt
    .cfi_endproc
    .size tc_clone3, .-tc_clone3

    .globl tc_clone
    .hidden tc_clone
    .type tc_clone, @function
tc_clone:
    .cfi_startproc
    movl $56, %eax
    movq %r8, %r9
    /* The call takes r8 and r10, and destroys rcx and r11: fn goes onto the new stack. */
    andq $-16, %rsi
    subq $16, %rsi
    movq %rcx, (%rsi)
    movq 16(%rdx), %r8
    movq 8(%rdx), %r10
    movq (%rdx), %rdx
    syscall
    testq %rax, %rax
    jz 2f
    ret
2:
    .cfi_undefined rip
    xorl %ebp, %ebp
    popq %rax
    addq $8, %rsp
    movq %r9, %rdi
    call *%rax
    hlt
    .cfi_endproc
    .size tc_clone, .-tc_clone

    .globl tc_sigreturn
    .hidden tc_sigreturn
    .type tc_sigreturn, @function
tc_sigreturn:
    movl $15, %eax
    syscall
    hlt
    .size tc_sigreturn, .-tc_sigreturn

    .section .note.GNU-stack, "", @progbits
