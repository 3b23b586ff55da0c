"""Fault 19: shares of tensors (DTensors) are an unpickling error."""

import io
import zipfile

from small_zoo import saved, state_dict

from nfn_transformer.zoo.checkpoint import read_checkpoint


def test_19_distributed_tensors_are_named_with_what_to_save():
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(state_dict(0)))) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl"):
                content = b"\x80" + b"\x02}X\x01\x00\x00\x00actorch.distributed.tensor\nDTensor\n)Rs."
            new.writestr(member.filename, content)
    detail = read_checkpoint("a.pt", buffer.getvalue()).fault.detail
    assert detail == "holds DTensors, which are shares of tensors: save the full_tensor() of each instead"
