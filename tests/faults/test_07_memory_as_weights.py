"""A pickle whose tensors would be made of whatever the memory holds is refused."""

import io

import pytest
import torch
from pickles import archive, entry, name, storage, tensor, whole

from nfn_transformer.zoo.torch_file import load_torch_file

FOUR = torch.arange(4.0).numpy().tobytes()


def test_a_sound_view_is_read():
    state = load_torch_file(archive(entry(tensor(4, 1, 2, 2)), (FOUR,)))
    assert state["x"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (name("torch", "Tensor") + whole(1000) + b"\x85R", "loading it would call 'torch.Tensor'"),
        (name("torch", "FloatTensor") + whole(1000) + b"\x85R", "loading it would call 'torch.FloatTensor'"),
        (storage(5), "its storage 0 should have 20 bytes, has 16"),
        (storage(4, "1"), "its storage 1 should have 16 bytes, has 0"),
        (storage(4, "../x"), "a storage that torch.save never writes"),
        (storage(-4), "a storage that torch.save never writes"),
        (tensor(4, 1, 4, 1), "'torch._utils._rebuild_tensor_v2' with arguments that torch.save never writes"),
        (tensor(4, 0, 2, 4), "with arguments that torch.save never writes"),
        (tensor(4, 0, 2, -1), "with arguments that torch.save never writes"),
        (tensor(4, 4, 1, 0), "with arguments that torch.save never writes"),
    ],
    ids=["sizes", "float", "long storage", "no storage", "path", "negative", "long", "stride", "back", "offset"],
)
def test_tensors_of_bytes_that_are_not_in_the_file_are_refused(value, message):
    with pytest.raises(ValueError, match=r"refused|damaged") as error:
        load_torch_file(archive(entry(value), (FOUR,)))
    assert message in str(error.value)


def test_an_old_file_holds_the_bytes_of_all_its_storages():
    buffer = io.BytesIO()
    torch.save({"x": torch.arange(4.0)}, buffer, _use_new_zipfile_serialization=False)
    sound = buffer.getvalue()
    assert load_torch_file(sound)["x"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert sound.count(b"a.") == sound.count(b"]q") == 1
    for content in (sound[:-1], sound + b"x", sound[: sound.rindex(b"]q")] + b"]."):
        with pytest.raises(ValueError, match="damaged"):
            load_torch_file(content)
