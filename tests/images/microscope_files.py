"""Writes small files of microscopes' programs: CZI by Zeiss' library, LIF and ND2, which no library writes, by hand."""

import struct
from xml.sax.saxutils import quoteattr

import numpy as np

CHANNELS = ("DAPI", "GFP")


def write_czi(path, array, names="TZCYX", pixel_um=(0.5, 0.25), corner=(10, -5), scenes=1):
    """Planes as tiles of two halves; of several scenes each has the values of the one before and 1 more."""
    from pylibCZIrw import czi

    colours = names.endswith("S")
    outer = names[: -3 if colours else -2]
    with czi.create_czi(str(path)) as file:
        for place in np.ndindex(array.shape[: len(outer)]):
            plane = array[place][..., ::-1] if colours else array[place][..., None]
            where = dict(zip(outer, place, strict=True)) | ({} if "C" in outer else {"C": 0})
            for scene in range(scenes):
                for left in (0, 32):
                    x = corner[0] + left + 1000 * scene
                    tile = np.ascontiguousarray(plane[:, left : left + 32] + scene).astype(array.dtype)
                    more = {"scene": scene} if scenes > 1 else {}
                    file.write(data=tile, plane=where, location=(x, corner[1]), **more)
        size = dict(zip(("scale_x", "scale_y"), (side * 1e-6 for side in pixel_um), strict=True))
        file.write_metadata(channel_names=dict(enumerate(CHANNELS)) if "C" in outer else {}, **size)


def write_lif(path, images, names="TZCYX", pixel_um=(0.5, 0.25)):
    """Images of one memory block each.

    Args:
        path: of the file.
        images: arrays by their names.
        names: of the axes of all.
        pixel_um: width and height.
    """
    ids = {"X": 1, "Y": 2, "Z": 3, "T": 4}
    elements, blocks = [], []
    for number, (name, array) in enumerate(images.items()):
        strides = dict(zip(names, array.strides, strict=True))
        sizes = dict(zip(names, array.shape, strict=True))
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * array.itemsize}" Min="0" Max="1" '
            f'Unit="" NameOfMeasuredQuantity="" LUTName="Gray" IsLUTInverted="0" BitInc="0" '
            f'BytesInc="{n * strides.get("C", 0)}">'
            f"<ChannelProperty><Key>DyeName</Key><Value>{CHANNELS[n]}</Value></ChannelProperty></ChannelDescription>"
            for n in range(sizes.get("C", 1))
        )
        length = {"X": pixel_um[0] * 1e-6, "Y": pixel_um[1] * 1e-6, "Z": 1e-6, "T": 1.0}
        dimensions = "".join(
            f'<DimensionDescription DimID="{ids[axis]}" NumberOfElements="{sizes[axis]}" Origin="0" Unit="m" '
            f'BitInc="0" Length="{length[axis] * (sizes[axis] - 1)}" BytesInc="{strides[axis]}"/>'
            for axis in reversed(names)
            if axis != "C"
        )
        description = f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions>"
        elements.append(
            f'<Element Name={quoteattr(name)} UniqueID="{number}"><Data><Image><ImageDescription>{description}'
            f"</ImageDescription></Image></Data>"
            f'<Memory Size="{array.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        block_id = f"MemBlock_{number}".encode("utf-16-le")
        data = array.tobytes()
        head = struct.pack("<IIBQBI", 0x70, len(block_id) + 14, 0x2A, len(data), 0x2A, len(block_id) // 2)
        blocks.append(head + block_id + data)
    children = f"<Children>{''.join(elements)}</Children>"
    xml = f'<LMSDataContainerHeader Version="2"><Element Name="project">{children}</Element></LMSDataContainerHeader>'
    text = xml.encode("utf-16-le")
    header = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(text) // 2) + text
    path.write_bytes(header + b"".join(blocks))


def write_nd2(path, array, names="TZCYX", pixel_um=0.5, positions=()):
    """As of version 2.1 of the format, whose metadata are XML.

    Args:
        path: of the file.
        array: channels, if there are any, before rows and columns.
        names: of its axes, from T, P, Z, C, Y, X.
        pixel_um: side; 0 is not calibrated.
        positions: names along P.
    """
    sizes = dict(zip(names, array.shape, strict=True))
    count = sizes.get("C", 1)
    loops = {
        "T": (1, {"dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0, "uiCount": sizes.get("T")}),
        "P": (2, {"Points": [{"dPosX": 0.0, "pPosName": name} for name in positions]}),
        "Z": (4, {"uiCount": sizes.get("Z"), "dZStep": 1.0}),
    }
    experiment = None
    for axis in reversed([axis for axis in names if axis in loops]):
        kind, parameters = loops[axis]
        inner = {} if experiment is None else {"ppNextLevelEx": [experiment]}
        experiment = {"eType": kind, "uLoopPars": [parameters], **inner}
    dye = {"pFluorescentProbe": {"m_sName": "dye"}}
    planes = {"uiCount": count, "sPlaneNew": {f"a{n}": {"sDescription": CHANNELS[n], **dye} for n in range(count)}}
    attributes = {"uiWidth": sizes["X"], "uiHeight": sizes["Y"], "uiComp": count, "uiBpcInMemory": 8 * array.itemsize}
    attributes |= {"uiBpcSignificant": 8 * array.itemsize, "uiSequenceCount": array.size // (sizes["X"] * sizes["Y"])}
    attributes |= {"uiWidthBytes": sizes["X"] * count * array.itemsize, "eCompression": 2}
    chunks = {
        "ImageAttributes!": _variant(attributes),
        "ImageMetadataSeq|0!": _variant(
            {"bCalibrated": pixel_um > 0, "dCalibration": float(pixel_um), "sPicturePlanes": planes}
        ),
    }
    if experiment is not None:
        chunks["ImageMetadata!"] = _variant(experiment)
    frames = (
        array.reshape(-1, count, sizes["Y"], sizes["X"]) if "C" in names else array.reshape(-1, 1, *array.shape[-2:])
    )
    for number, frame in enumerate(frames):
        chunks[f"ImageDataSeq|{number}!"] = struct.pack("d", number) + np.moveaxis(frame, 0, -1).tobytes()
    content = bytearray(_chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver2.1".ljust(64, b"\0"), 32))
    where = b""
    for name, data in chunks.items():
        content += bytes(-len(content) % 4096)
        where += name.encode() + struct.pack("QQ", len(content), len(data))
        content += _chunk(name.encode(), data, 4072 if name.startswith("ImageDataSeq") else 32)
    place = len(content)
    content += _chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", where + b"ND2 CHUNK MAP SIGNATURE 0000001!" + bytes(16), 32)
    path.write_bytes(content + b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("Q", place))


def _chunk(name, data, reserved):
    # Frames begin 4096 bytes behind the chunk, of which 16 are its head, and 8 of the time are theirs.
    return struct.pack("IIQ", 0x0ABECEDA, reserved, len(data)) + name.ljust(reserved, b"\0") + data


def _variant(value):
    return f'<?xml version="1.0"?><variant version="1.0">{_xml("no_name", value)}</variant>'.encode()


def _xml(name, value):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else [("no_name", item) for item in value]
        return f'<{name} runtype="CLxListVariant">{"".join(_xml(*item) for item in items)}</{name}>'
    kinds = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name} runtype={quoteattr(kinds[type(value)])} value={quoteattr(text)}/>"
