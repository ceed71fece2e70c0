"""List of the books of the pre-training corpus: English fantasy and adventure, first published before 1929."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Book:
    """One book of Project Gutenberg."""

    id: int
    """Number of the book in the catalogue of Project Gutenberg."""
    size: int
    """Bytes of the listed edition."""
    sha256: str
    """Checksum of that edition, in hexadecimal digits."""
    title: str
    """Title without its subtitle."""

    @property
    def file_name(self) -> str:
        """Name of the file of the book in a folder of books."""
        return f"{self.id}.txt"


def _parse(line: str) -> Book:
    number, size, sha256, title = line.split(maxsplit=3)
    return Book(int(number), int(size), sha256, title)


_TABLE = """
  11  173595 49a0b2726606e1290ac03a63978fa1dd1bd38a8d805704d98265f393533ea094 Alice's Adventures in Wonderland
  12  193607 24bae70935e7fce7be74357779c53861c0cd04b3687f3005c1a8687f2b909988 Through the Looking-Glass
  16  290755 b1e7ade0c061259293c7b07fe3f8ba445b4cf3353e6c657c8cdcd0223bbe0eb8 Peter Pan
  54  269641 ed840664386fb16386a7e3e3a69ff6e2a9099a1cbb714a6eed4401205c5deb46 The Marvelous Land of Oz
  55  232789 18274f31ae11aea07ea9b4f707998636c6f75d784c60d7e8fea0b4d5c2d77af6 The Wonderful Wizard of Oz
  82 1164173 58d0ba9b490557ff12102054d361d935cbe9b9a752c630091afe5391c45b1324 Ivanhoe
  95  322914 03a57076de9eb1fe8143b54d2a795af5600a443c373d72c051603a80e2e038d0 The Prisoner of Zenda
 113  475383 8a7aebc835ae37baef0f7b9362ed9fc6372a360e8001f9481c13acf9194cb483 The Secret Garden
 120  396596 0fee2fef1b2ffde22e2c962bd8bc2b75ea1ae9b02b3fe85ef08d44f4cc1bb2de Treasure Island
 128  629056 bc0bc9384c8da75922efe0b1d67d8ef565d85ca1c0b275211f56990a1fc475c9 The Arabian Nights Entertainments
 139  451813 f6b39bd6c79270d117e0a4e9a8814628e4185d356a0a6d6bd7116e74c389b7d5 The Lost World
 169 1202706 0bf793dc3c96d87e83eddc67a7c7a5061e00537110319d1ffe8231fdd68eb269 The Well at the World's End
 225  506156 d14238447299aa95ce3fca8394ffd31d8a8f4e9a455c78c75d236ada8e31f54c At the Back of the North Wind
 236  304376 2f9486eb4776d23baf1064eebb73bb0093b808b13e10516e81e20d1dbe4909c9 The Jungle Book
 289  358153 f875d0ae7c153741c516d4db2f3c1686f8dd79e341ea27dbc2167178a09cd587 The Wind in the Willows
 421  459459 f2ea387ba7cae60ada941bb1b6b4cc1ee960582503eca48b9b602c9cd07dd237 Kidnapped
 486  240027 8363483af3b4c13501df617a41321f3535b19372ce63aaa2f6be8bb49ac8bc12 Ozma of Oz
 503  774841 1dc3c13543d1a3b7baaa76f84dd45f444652cad9ea434c4849c32b66f073a29b The Blue Fairy Book
 540  697142 8cd1a7810549f0d835068c889cf1a3d30ffd14391342c6054f712f02290415dd The Red Fairy Book
 640  615958 e8ee7f5149f5a4e2b241477f58e7d51f5934180324ec5676821ad589362f6ad8 The Yellow Fairy Book
 641  572884 64d94d6cce1b31d436a5e7279499d34c5929e84147d310834e2a06852108a284 The Violet Fairy Book
 708  301040 103c5634780f3aacb7cd2384335305b6fba46b52971516ae8801ffff5b6d2387 The Princess and the Goblin
 709  325405 343bf757a0f33e9556e56f0e03993c6a5ab4f7da561aac25bd0fa844d4b32cf0 The Princess and Curdie
 778  307149 9675b40c709474b2f4353304aac824b57a4c7354d181c8871c0d597ef80174ac Five Children and It
 836  379172 259321ffbe4a5b393f13b06e380812e805fd82cb88b84ab191c60fea5b190d92 The Phoenix and the Carpet
 837  422240 15357aa0cc48805de5b65571bd9cc572e0deb628989e53f274c95dab2c6db3d9 The Story of the Amulet
 903  860818 a64106a5ec34554eb3dabf402c715904a76ff19103c444798a8e12f8c85eb232 The White Company
 964  620656 c6034a143353fa8eb9c241b1d2aa2aff6d59f10579513e102aeb2d969ed65300 The Merry Adventures of Robin Hood
1257 1385830 b18b774113402504f1fa833ea9f6810430346815a4503f12418a1cb4ef251729 The Three Musketeers
1557  405578 0476e3683f11191ebaf95d02c8303cfb3c4cb90cd8489cc4083e8a7cb938a8af Men of Iron
1640  539721 aaa9f2f06c023a092635db2de1978b89bf92da350a3dc20134442d23b1f5e02e Lilith
1661  594941 2a0ce5568625a304f54fbb6bfdeeadf527a1437254b5f0e06b5a9e233d4784a2 The Adventures of Sherlock Holmes
2166  473545 dfdb09f42cc108aafa9546b051961a0f2b25cecc0cedf3ba29bffb712e9e5e1a King Solomon's Mines
2435  545147 1735d559df861fd499298e6f360909037703259ebe37d2ada27545f24213ceb2 The Crimson Fairy Book
2721  614284 99f0c58a91d28338465cf60cfbe6cbe6c2e28961e937586e14fb84d7e2b13902 Eric Brighteyes
2845  740910 6fb6a5965ab9b50d7a09544a34672a049a6756491acdd9e022215cd558d12fec Sir Nigel
2865  175297 fe5601de45c157abde28192c90febe012887956212fb854afbbeec15e9636bbd Otto of the Silver Hand
3027  551992 ccdb6c4fe1ff160c3614403683df684546bd785f5bbe6e9a4925ad36a38cc1a2 The Orange Fairy Book
3055  281675 ff0e18689a0dde4a34d6c948a3e862f00349f97cdb98aa1122e2dc30b7c90702 The Wood Beyond the World
3155  644166 08f565805b16c4565ec69fafa52adf937795b2360031594e0092efece211bc66 She
3282  546673 070ec704aa27581f14d475b15a40ee3f2e3ff702ec43aefca6b81134426f218b The Brown Fairy Book
3454  557962 daf164a2ee74a6a8209fc5e90a729c005bca9a02a618ba7b1a1d39b95ba776f2 The Lilac Fairy Book
3536  401896 b1e0cf475f41e84d0d43dedcbe5d365267a9947acf31ea9a33c934a3af8b138d The Enchanted Castle
7277  676341 f8820efcd3d5ddc527c4a67d48890d501fd27e873505c2b780e09df6338555fa The Green Fairy Book
7439  355496 deef11602e7230a78e940aeed23e8b06d4690c44aa6cff4a20db3a4ee354e887 English Fairy Tales
7477  146223 e4c605d7ca304c06521c31c96cbf4fd2b80b598130014c2acfd806761b836703 The Book of Wonder
7885  422196 6d8df0f35e37fb27599ef21b5d8da199efa8e8b0064bf0b77c88f9fd6edec74f Celtic Fairy Tales
8129  218259 0299d4a5d74ec5e389db21cee72cda54337a9c26f65693860ecded92f02d92ec A Dreamer's Tales
8183  239344 1039f3711f7991e5cf06923f97067f961107aa0f24677076ef5315ef4e4c0d9d Time and the Gods
"""

BOOKS = tuple(map(_parse, _TABLE.strip().splitlines()))
"""Books of the corpus, in the order of the text."""
