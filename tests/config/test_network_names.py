"""What a network may be called."""

import pytest

from dwlt_lib.config import network_names


def test_a_name_has_one_form_and_what_is_none_is_refused():
    spaced = "timm/convnext_atto( dims=[8,16],depths = (1,1))"
    assert network_names.canonical(spaced) == "timm/convnext_atto(depths=(1, 1), dims=[8, 16])"
    assert (
        network_names.canonical("timm/a()") == "timm/a"
        and network_names.canonical("resnet8") == "resnet8"
    )
    for wrong, said in (
        ("resnet9", "nearest: resnet8"),
        ("timm/a(1)", "plain values"),
        ("timm/a(b=open('c'))", "plain values"),
        ("timm/a(b=1)(c=2)", "plain values"),
        ("timm/a(b={1, 2})", "plain values"),
        ("timm/a(**{})", "plain values"),
        ("timm/a(depth=1000000)", "at most 4096"),
        ("timm/a(pretrained=True)", "pretrained is not"),
        ("timm/hf-hub:a/b", "want one of"),
    ):
        with pytest.raises(ValueError, match=said):
            network_names.canonical(wrong)
        assert not network_names.is_packaged(wrong)
    assert network_names.is_packaged("timm/a(b=1)") and not network_names.is_packaged("os:system")
