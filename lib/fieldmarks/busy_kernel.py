"""A kernel that gives a reloaded page its widgets while a cell runs."""

ASKED_BY_PAGES = {"kernel_info_request", "comm_open", "comm_msg", "comm_close"}


def answer_reloaded_pages() -> None:
    """Lets JupyterLab show the widgets of a page that it loads anew while a cell runs.

    It draws them once the kernel has said what it is and what state they have, and asks where only
    a kernel at rest answers. From here on the thread that receives these questions answers
    them, where there is one: in ipykernel 7."""
    from IPython import get_ipython

    kernel = get_ipython().kernel
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is None or hasattr(thread, "answers_reloaded_pages"):
        return
    thread.answers_reloaded_pages = True
    session, stream, pass_on = kernel.session, kernel.shell_stream, kernel.shell_channel_thread_main

    def say(state: str, request: dict) -> None:
        content, topic = {"execution_state": state}, kernel._topic("status")
        session.send(kernel.iopub_socket, "status", content, request, topic)

    async def receive(frames: list) -> None:
        sender, parts = session.feed_identities(frames, copy=False)
        header = session.deserialize(parts, content=False, copy=False)["header"]
        kind = header["msg_type"]
        if kind not in ASKED_BY_PAGES or header.get("subshell_id"):
            return await pass_on(frames)
        request = session.deserialize(parts, copy=False)
        if kind == "kernel_info_request":
            say("busy", request)
            await kernel.kernel_info_request(stream, sender, request)
            say("idle", request)
        else:
            getattr(kernel.comm_manager, kind)(stream, sender, request)

    thread.io_loop.add_callback(stream.on_recv, receive, copy=False)
