"""A kernel that gives a reloaded page its widgets while a cell runs."""

# What a page asks for the states of all widgets through; what widgets say has comms of its own.
CONTROL = "jupyter.widget.control"


def answer_reloaded_pages() -> None:
    """Lets JupyterLab show the widgets of a page that it loads anew while a cell runs.

    It draws them once the kernel has said what it is and what state they have, and asks where only
    a kernel at rest answers. From here on the thread that receives these two questions answers
    them, where there is one: in ipykernel 7."""
    from ipykernel.kernelapp import IPKernelApp

    kernel = IPKernelApp.instance().kernel
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is None or hasattr(thread, "answers_reloaded_pages"):
        return
    thread.answers_reloaded_pages = True
    session, stream, pass_on = kernel.session, kernel.shell_stream, kernel.shell_channel_thread_main

    def say(state: str, request: dict) -> None:
        content, topic = {"execution_state": state}, kernel._topic("status")
        session.send(kernel.iopub_socket, "status", content, request, topic)

    controls = set()  # comms of this kind

    async def receive(frames: list) -> None:
        sender, parts = session.feed_identities(frames, copy=False)
        packed = session.deserialize(parts, content=False, copy=False)
        kind = packed["header"]["msg_type"]
        content = session.unpack(packed["content"]) if kind.startswith("comm_") else {}
        if content.get("target_name") == CONTROL and kind == "comm_open":
            controls.add(content["comm_id"])
        if kind == "kernel_info_request":
            request = session.deserialize(parts, copy=False)
            say("busy", request)
            await kernel.kernel_info_request(stream, sender, request)
            say("idle", request)
        elif content.get("comm_id") in controls:
            request = session.deserialize(parts, copy=False)
            getattr(kernel.comm_manager, kind)(stream, sender, request)
        else:
            await pass_on(frames)

    thread.io_loop.add_callback(stream.on_recv, receive, copy=False)
